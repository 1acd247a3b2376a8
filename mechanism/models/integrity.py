"""Is what was loaded what was named? Weights that fit the architecture, a tokenizer that reads, and a hash of both."""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils.peft_utils import ADAPTER_CONFIG_NAME, find_adapter_config_file

from .errors import ModelError

PROBE = "Hello world"
"""Text that every tokenizer encodes into something."""

_WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.pth", "*.gguf", "*.ckpt", "*.msgpack", "*.h5", "*.npz")
_WHOLE = 2 * 10**9  # bytes that are hashed as a whole; of larger models each file is sampled
_BLOCK, _BLOCKS = 1 << 20, 64


def refuse_adapter(spec: str, where: str, revision: str | None = None) -> None:
    """Refuse a folder, or a hub's repository, that holds an adapter beside, or in place of, a model.

    Raises:
        ModelError: it does; transformers would apply or ignore it without a word, as peft is installed or not.
    """
    if find_adapter_config_file(where, revision=revision) is not None:
        raise ModelError(
            f"{spec} holds an adapter ({ADAPTER_CONFIG_NAME}): merge it into its base first (peft: `merge_and_unload`, "
            "then `save_pretrained`) and name that folder"
        )


def refuse_partial(spec: str, info: Mapping[str, Any]) -> None:
    """Refuse a model whose weights are not those of its architecture.

    Args:
        info: what transformers says of loading: missing, unexpected and mismatched keys.

    Raises:
        ModelError: a weight is missing and was filled at random, has another shape, or is not used.
    """
    kinds = {
        "missing_keys": "lacks weights, which would be drawn at random",
        "mismatched_keys": "has weights of another shape than its configuration says",
        "unexpected_keys": "has weights that its architecture does not use",
    }
    for kind, told in kinds.items():
        names = sorted(one if isinstance(one, str) else str(one[0]) for one in info.get(kind) or ())
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise ModelError(
                f"{spec} {told}: {', '.join(names[:3])}{more}; name a whole checkpoint, or take it as it is in "
                "Python with `load(..., partial=True)`"
            )


def refuse_mute(spec: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse a tokenizer that does not belong to the model.

    Raises:
        ModelError: it encodes two words into nothing, or into ids that the model has no embedding for.
    """
    ids = tokenizer(PROBE, add_special_tokens=False)["input_ids"]
    if not ids:
        raise ModelError(
            f"the tokenizer of {spec} encodes {PROBE!r} into nothing: its files are missing or not its own; put the "
            "tokenizer's files beside the model"
        )
    rows = model.get_input_embeddings().weight.shape[0]
    if max(ids) >= rows:
        raise ModelError(
            f"the tokenizer of {spec} gives the id {max(ids)}, and the model embeds {rows} ids: it is not its own"
        )


def padded(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """The tokenizer with a token to pad with that the model embeds; what stands behind a text is never read."""
    rows = model.get_input_embeddings().weight.shape[0]
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id >= rows:
        known = (tokenizer.eos_token, tokenizer.bos_token, tokenizer.unk_token)
        usable = (token for token in known if token and tokenizer.convert_tokens_to_ids(token) < rows)
        tokenizer.pad_token = next(usable, None) or tokenizer.convert_ids_to_tokens(0)
    return tokenizer


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
