"""What a training run is, what it reads, and where its record and its checkpoints lie."""

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

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
class Run:
    """A training run: its configuration and the data it reads.

    Attributes:
        name: label; not part of the hash.
        train: optimisation and architecture; mixture: what is read.
        data: content hash of the training corpora, the word-problem templates and the tokenizer.
    """

    name: str
    train: TrainConfig
    mixture: MixtureConfig
    data: str

    @property
    def hash(self) -> str:
        """Content address: twelve hexadecimal digits of the SHA-256 of configuration and data."""
        payload = {"train": asdict(self.train), "mixture": asdict(self.mixture), "data": self.data}
        return hashlib.sha256(json.dumps(payload, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def record(self) -> Path:
        """Folder of the committed record."""
        return RUNS / self.hash

    @property
    def workspace(self) -> Path:
        """Folder of checkpoints, outside the repository."""
        return cache_folder() / "runs" / self.hash


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
    """The run of a configuration file: a mapping with `train` and `mixture`.

    Raises:
        FileNotFoundError: no such file; the message lists the committed configurations.
    """
    if not config.exists():
        known = ", ".join(sorted(p.stem for p in CONFIGS.glob("*.yaml")))
        raise FileNotFoundError(f"no training configuration at {config}; committed ones in {CONFIGS}: {known}")
    payload = yaml.safe_load(config.read_text("utf-8"))
    mixture = payload.get("mixture", {})
    if "languages" in mixture:
        mixture["languages"] = tuple(mixture["languages"])
    return Run(config.stem, read_config(payload.get("train", {})), MixtureConfig(**mixture), data_hash())


def find_run(config: str) -> Run:
    """The run of a `.yaml` file, or of a committed configuration's name; see `load_run`."""
    return load_run(Path(config) if config.endswith(".yaml") else CONFIGS / f"{config}.yaml")


def records() -> dict[str, Path]:
    """Committed records of training runs: name -> folder. Of several of one name, that of the committed configuration,
    else the last by hash. Records of studies stand beside them and have no name."""
    found: dict[str, list[Path]] = {}
    for path in sorted(RUNS.glob("*/config.json")):
        config = json.loads(path.read_text("utf-8"))
        if "study" not in config:
            found.setdefault(config["name"], []).append(path.parent)
    return {name: _current(name, folders) for name, folders in found.items()}


def _current(name: str, folders: list[Path]) -> Path:
    """The folder of a run's committed configuration, the last of those given where none of them is."""
    path = CONFIGS / f"{name}.yaml"
    wanted = load_run(path).hash if len(folders) > 1 and path.exists() else ""
    return next((folder for folder in folders if folder.name == wanted), folders[-1])
