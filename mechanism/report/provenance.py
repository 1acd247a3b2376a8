"""Where numbers come from: code, data, model, versions and settings, without paths, host names or times."""

import html
import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ..corpus.build import read_manifest
from ..corpus.library import ROOT
from ..corpus.store import sha256
from ..models.file_hashes import weight_hashes
from .files import REPOSITORY, code_hash, file_sha256, tree_hash

SHORT = 12
_VERSIONS = ("torch", "transformers", "tokenizers", "numpy")


@dataclass(frozen=True)
class Provenance:
    """Labels and values.

    Attributes:
        content: what decides the numbers, the same on every machine that runs the same thing.
        machine: what they were computed on.
    """

    content: Mapping[str, str]
    machine: Mapping[str, str]

    def rows(self) -> list[tuple[str, str]]:
        """Every label and value, in order."""
        return [*self.content.items(), *self.machine.items()]

    def __str__(self) -> str:
        width = max(len(label) for label, _ in self.rows())
        return "\n".join(f"{label:<{width}}  {value}" for label, value in self.rows())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        cells = "".join(
            f'<tr><th scope="row">{html.escape(label)}</th><td>{html.escape(value)}</td></tr>'
            for label, value in self.rows()
        )
        return f'<table class="dataframe provenance"><caption>Provenance</caption><tbody>{cells}</tbody></table>'


def provenance(
    model_path: str | Path | None = None,
    run: str | None = None,
    data: str | Path | Sequence[str] | None = None,
    seed: int | None = None,
    dtype: object = None,
    device: Any = None,
    **more: object,
) -> Provenance:
    """Collect the provenance of what follows.

    Args:
        model_path: folder of a model, which is hashed, or a hub id, which is only named.
        run: hash of the training run.
        data: a committed corpus' name, or a file or folder of the user's, which is hashed, or several; without any, all
            committed corpora.
        seed, dtype, device: settings of the computation.
        more: further labels and values.
    """
    stated = {"run": run, "seed": seed, "dtype": dtype, **{name.replace("_", " "): v for name, v in more.items()}}
    content = {
        "mechanism": f"{package_version('mechanism')}, code {code_hash()[:SHORT]}",
        **_model(model_path),
        "data": _data(data),
        **{label: str(value).removeprefix("torch.") for label, value in stated.items() if value is not None},
        **{name: package_version(name) for name in _VERSIONS},
    }
    return Provenance(content, _machine(device))


def package_version(name: str) -> str:
    """Version of an installed distribution, without the local build label; `not installed` without one."""
    try:
        return version(name).split("+")[0]
    except PackageNotFoundError:
        return "not installed"


def data_hashes() -> dict[str, str]:
    """Content hash of each committed corpus: SHA-256 over its files' hashes in the manifest."""
    files = {name: json.dumps(entry["files"], sort_keys=True) for name, entry in sorted(read_manifest(ROOT).items())}
    return {name: sha256(payload.encode()) for name, payload in files.items()}


def git_commit() -> str | None:
    """Commit of the checkout, marked when files differ from it; None outside a checkout or without git."""
    try:
        arguments = ["git", "describe", "--always", "--dirty=+changes", "--exclude=*"]
        done = subprocess.run(arguments, cwd=REPOSITORY, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def _model(path: str | Path | None) -> dict[str, str]:
    if path is None:
        return {}
    folder = Path(path)
    if not folder.is_dir():
        return {"model": str(path) if len(folder.parts) <= 2 and not folder.is_absolute() else folder.name}
    found = {"model": folder.resolve().name}
    if (folder / "config.json").exists():
        found["model config"] = f"sha256 {file_sha256(folder / 'config.json')[:SHORT]}"
    if weights := weight_hashes(folder):
        found["model weights"] = f"sha256 {', '.join(own[:SHORT] for own in weights.values())}"
    return found


def _data(data: str | Path | Sequence[str] | None) -> str:
    hashes = data_hashes()
    if data and not isinstance(data, str | Path):
        return ", ".join(map(_data, data))
    if not data:
        return ", ".join(f"{name} {digest[:SHORT]}" for name, digest in hashes.items())
    if str(data) in hashes:
        return f"{data} {hashes[str(data)][:SHORT]}"
    path = Path(str(data))
    return f"{path.name} {tree_hash([path])[:SHORT]}" if path.exists() else str(data)


def _machine(device: Any) -> dict[str, str]:
    import torch

    kind = str(device) if device is not None else "cpu"
    name = torch.cuda.get_device_name(device) if kind.startswith("cuda") and torch.cuda.is_available() else cpu_name()
    found = {
        "python": platform.python_version(),
        "device": f"{kind} ({name})",
        "threads": str(torch.get_num_threads()),
    }
    commit = git_commit()
    return {**found, "git commit": commit} if commit else found


def cpu_name() -> str:
    """The processor and its number of cores."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text("utf-8").splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores"
