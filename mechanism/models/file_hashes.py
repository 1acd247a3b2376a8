"""What a folder's model is, by its files alone: no torch, so that reports tell it where no model is loaded."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

_WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.pth", "*.gguf", "*.ckpt", "*.msgpack", "*.h5", "*.npz")
_WHOLE = 2 * 10**9  # bytes that are hashed as a whole; of larger models each file is sampled
_BLOCK, _BLOCKS = 1 << 20, 64


def content_hash(folder: Path) -> str:
    """Sixteen hexadecimal digits over the configuration, the weights of any format and the tokenizer of a folder. The
    weights of a large model are sampled: size, ends and evenly spaced blocks of every file."""
    weights = weight_hashes(folder)
    others = {path.name: _sha256(path) for path in (folder / "config.json", *folder.glob("tokenizer*"))}
    digest = hashlib.sha256()
    for name, own in sorted({**others, **weights}.items()):
        digest.update(f"{name}\0{own}\n".encode())
    return digest.hexdigest()[:16]


def weight_hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every weight file of a folder by name; of samples where they are large, see `content_hash`."""
    files = sorted(_files(folder))
    hashed = _sampled if sum(path.stat().st_size for path in files) > _WHOLE else _sha256
    return {path.name: hashed(path) for path in files}


def _files(folder: Path) -> Iterator[Path]:
    for pattern in _WEIGHTS:
        yield from (path for path in folder.glob(pattern) if path.is_file())


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _sampled(path: Path) -> str:
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as stream:
        for number in range(_BLOCKS):
            stream.seek(max(0, (size - _BLOCK) * number // (_BLOCKS - 1)))
            digest.update(stream.read(_BLOCK))
    return digest.hexdigest()
