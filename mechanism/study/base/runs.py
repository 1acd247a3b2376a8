"""What a training run is, what it reads, and where its record and its checkpoints lie."""

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import yaml

from ...corpus import word_problems
from ...corpus.build import read_manifest
from ...corpus.library import DATA, ROOT
from ...corpus.mixture import MixtureConfig
from ...nn.train_config import TrainConfig, read_config

TOKENIZER = DATA / "tokenizer"
RUNS = DATA / "runs"
CONFIGS = DATA / "configs"
EVALUATION, SHARES = "evaluation.csv", "shares.json"
"""Files in the record of a finished run: its task table, and what share of its stream each kind of document had."""


@dataclass(frozen=True)
class Addressed:
    """What is found by the hash of its fields, but for those `aside`, which do not decide its numbers."""

    aside: ClassVar[tuple[str, ...]]

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the numbers, as JSON values."""
        return {name: value for name, value in asdict(self).items() if name not in self.aside}

    @cached_property
    def hash(self) -> str:
        """Content address: twelve hexadecimal digits of the SHA-256 of its identity."""
        return hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def workspace(self) -> Path:
        """Folder of checkpoints, outside the repository."""
        return cache_folder() / "runs" / self.hash


@dataclass(frozen=True)
class Run(Addressed):
    """A training run: its `name`, its configuration `train`, the `mixture` that it reads, `data`, the content hash of
    the training corpora, the word-problem templates and the tokenizer, and `base`, the hash of the run with whose last
    weights it begins; empty for a random start."""

    aside = ("name",)
    name: str
    train: TrainConfig
    mixture: MixtureConfig
    data: str
    base: str = ""

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the numbers; without a base it is not named, as before there were any."""
        return {name: value for name, value in super().identity.items() if name != "base" or value}

    @property
    def record(self) -> Path:
        """Folder of the committed record."""
        return RUNS / self.hash


def cache_folder() -> Path:
    """`$MECHANISM_CACHE`, or `mechanism` in the user's cache folder."""
    base = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return Path(os.environ.get("MECHANISM_CACHE", base / "mechanism"))


def data_hash() -> str:
    """Hash over the content of everything a training stream is made of."""
    digest = hashlib.sha256()
    for name, entry in sorted(read_manifest(ROOT).items()):
        for file, hashes in sorted(entry["files"].items()):
            digest.update(f"{name}/{file}={hashes['text_sha256']}\n".encode())
    templates = Path(word_problems.__file__).with_suffix(".yaml")
    for path in (templates, TOKENIZER / "tokenizer.json"):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def load_run(config: Path) -> Run:
    """The run of a configuration file: a mapping with `train`, `mixture`, and `base`, a configuration of a name beside
    it, where the run goes on from another's weights.

    Raises:
        FileNotFoundError: there is no base of that name.
    """
    payload = yaml.safe_load(config.read_text("utf-8"))
    mixture = payload.get("mixture", {})
    if "languages" in mixture:
        mixture["languages"] = tuple(mixture["languages"])
    base = find_run(str(config.with_name(f"{payload['base']}.yaml"))).hash if "base" in payload else ""
    return Run(config.stem, read_config(payload.get("train", {})), MixtureConfig(**mixture), data_hash(), base)


def config_file(name: str, folder: Path, kind: str) -> Path:
    """A `.yaml` file as it is, or the committed one of that name in a folder.

    Raises:
        FileNotFoundError: there is none of this kind; the message lists the committed ones.
    """
    path = Path(name) if name.endswith(".yaml") else folder / f"{name}.yaml"
    if not path.exists():
        known = ", ".join(sorted(p.stem for p in folder.glob("*.yaml")))
        raise FileNotFoundError(f"no {kind} at {path}; committed ones in {folder}: {known}")
    return path


def find_run(config: str) -> Run:
    """The run of a `.yaml` file, or of a committed configuration's name; see `config_file`."""
    return load_run(config_file(config, CONFIGS, "training configuration"))


def records() -> dict[str, Path]:
    """Committed records of training runs: name -> folder. Of several of one name, that of the committed configuration,
    else the last by hash. Records of studies stand beside them and have no name."""
    found: dict[str, list[Path]] = {}
    for path in sorted(RUNS.glob("[!.]*/config.json")):
        config = json.loads(path.read_text("utf-8"))
        if "study" not in config:
            found.setdefault(config["name"], []).append(path.parent)
    return {name: _current(name, folders) for name, folders in found.items()}


def _current(name: str, folders: list[Path]) -> Path:
    """The folder of a run's committed configuration, the last of those given where none of them is."""
    path = CONFIGS / f"{name}.yaml"
    wanted = load_run(path).hash if len(folders) > 1 and path.exists() else ""
    return next((folder for folder in folders if folder.name == wanted), folders[-1])
