"""Models by name: committed with the report, on disk, or on a hub."""

import copy
import importlib.util
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import CONFIG_NAME, cached_file
from transformers.utils import logging as transformers_logging
from transformers.utils.hub import extract_commit_hash

from ..corpus.library import DATA
from ..corpus.store import sha256
from ..nn import auto
from .errors import ModelError, explained
from .file_hashes import content_hash
from .integrity import padded, refuse_adapter, refuse_mute, refuse_partial
from .memory import Footprint, auto_class, footprint, free_memory, lacking, routed_experts, skeleton
from .passes import encode, pad, padding_token, room

MODELS = DATA / "models"
MODEL_FILE, CARD = "model.safetensors", "card.json"
BALANCED = "balanced"
"""Device that spreads a model's layers over all GPUs."""


@dataclass(frozen=True, eq=False)
class Loaded:
    """A model under study; calling it is a pass.

    Attributes:
        model: in evaluation mode; tokenizer: has a token to pad with; spec: how it was asked for.
        dtype: name of the torch dtype of its weights; device: `cpu`, `cuda`, `cuda:N` or `balanced`.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    spec: str
    dtype: str
    device: str

    @cached_property
    def hash(self) -> str:
        """What records know the model by; see `model_hash`."""
        return model_hash(self.spec)

    @property
    def moe(self) -> bool:
        """Whether it has routed experts."""
        return routed_experts(self.model) > 1

    @torch.no_grad()
    def __call__(self, texts: str | Sequence[str]) -> Any:
        """The model's output for texts, each behind the token that opens it, padded on the right, without gradients."""
        texts = [texts] if isinstance(texts, str) else texts
        ids, mask = pad(encode(self.tokenizer, texts, room(self.model)), padding_token(self.tokenizer))
        place = self.model.device
        return self.model(input_ids=ids.to(place), attention_mask=mask.to(place), use_cache=False)


def resolve(spec: str) -> str:
    """Folder of a committed model's name or of a path; a hub id, `owner/name` or `owner/name@revision`, stays as it is.

    Raises:
        ModelError: it looks like a path and nothing is there.
    """
    if (MODELS / spec / "config.json").exists():
        return str(MODELS / spec)
    path = Path(spec)
    if path.is_dir():
        if not (path / "config.json").exists():
            raise ModelError(f"no model in {path}: it has no config.json")
        return str(path)
    if spec.startswith((".", "/", "~")) or spec.split("@")[0].count("/") != 1:
        known = ", ".join(sorted(p.parent.name for p in MODELS.glob("*/config.json")))
        absent = "the committed models are in the repository, which is not here; "
        known = f"committed models: {known}; or " if known else absent
        raise ModelError(f"no model at {spec!r}; {known}give a folder or a hub id owner/name")
    return spec


def load_config(spec: str) -> PreTrainedConfig:
    """Configuration of a model; of one on a hub it is downloaded.

    Raises:
        ModelError: see `load`.
    """
    auto.register()
    where, revision = _source(spec)
    with explained(spec, where):
        return AutoConfig.from_pretrained(where, **revision)


def pinned(spec: str) -> str:
    """A model on a hub with the commit that its revision means now, `owner/name@commit`; anything else as it is.

    Raises:
        ModelError: see `load`.
    """
    where, revision = _source(spec)
    if Path(where).is_dir():
        return spec
    commit = _commit(where, revision, spec)
    if commit is None:
        raise ModelError(f"the hub names no commit for {spec!r}: download the model and give its folder")
    return f"{where}@{commit}"


def _commit(where: str, revision: Mapping[str, str], spec: str) -> str | None:
    """Commit that a hub answers with for a model's configuration, which transformers does not keep."""
    with explained(spec, where):
        return extract_commit_hash(cached_file(where, CONFIG_NAME, **revision), None)


def model_hash(spec: str) -> str:
    """Sixteen hexadecimal digits over a model's configuration, weights and tokenizer, see `content_hash`; of a model on
    a hub, its id and revision."""
    where = Path(resolve(spec))
    if not where.is_dir():
        return sha256(pinned(spec).encode())[:16]
    return content_hash(where)


def load(
    spec: str = "embedded", device: str = "auto", dtype: str = "float32", moe: bool = False, partial: bool = False
) -> Loaded:
    """A causal language model with its tokenizer.

    Args:
        spec: a committed model's name, a folder, or a hub id, with `@revision` or without.
        device: `auto` takes the GPU where there is one; `balanced` spreads the layers over all GPUs (needs accelerate).
        dtype: torch dtype name.
        moe: refuse a model without routed experts.
        partial: take a checkpoint whose weights are not those of its architecture: what is missing is drawn at random.

    Raises:
        ModelError: no such model or revision, a gated one, no network for a hub id, an architecture that transformers
            does not know, a dense model where `moe`, damaged, missing, unused or misshapen weights, an adapter, a
            tokenizer that is not the model's, an unknown dtype or device, too little memory.
    """
    precision, target = parse_dtype(dtype), parse_device(device)
    where, revision = _source(spec)
    verify_weights(Path(where))
    refuse_adapter(spec, where, **revision)
    transformers_logging.disable_progress_bar()
    config = load_config(spec)
    with explained(spec, where):
        if moe and routed_experts(skeleton(config)) < 2:
            raise ModelError(f"{spec} is a dense model ({config.model_type}): it has no routed experts to study")
    spread = {"device_map": BALANCED} if target == BALANCED else {}
    with explained(spec, where):
        model, info = auto_class(config).from_pretrained(
            where, dtype=precision, output_loading_info=True, ignore_mismatched_sizes=True, **revision, **spread
        )
        if not partial:
            refuse_partial(spec, info)
        if model.dtype != precision and not getattr(model, "is_quantized", False):
            model = model.to(precision)  # fp8 is dequantised to bfloat16 where there is no GPU, whatever is asked for
        tokenizer = padded(model, AutoTokenizer.from_pretrained(where, **revision))
        refuse_mute(spec, model, tokenizer)
        if not Path(where).is_dir():
            model.config._commit_hash = _commit(where, revision, spec)  # read by `trace.attachable.provenance`
        return Loaded((model if spread else model.to(target)).eval(), tokenizer, spec, dtype, target)


def as_loaded(model: Loaded | nn.Module) -> Loaded:
    """A plain model of transformers with the tokenizer of the place it came from, as `load` gives it.

    Raises:
        ModelError: no tokenizer there.
    """
    if isinstance(model, Loaded):
        return model
    where = getattr(getattr(model, "config", None), "_name_or_path", "")
    if not isinstance(model, PreTrainedModel) or not where:
        raise ModelError(f"a {type(model).__name__} does not say where its tokenizer is: save it and load its folder")
    with explained(where, where):
        tokenizer = padded(model, AutoTokenizer.from_pretrained(where))
        refuse_mute(where, model, tokenizer)
    return Loaded(model.eval(), tokenizer, where, str(model.dtype).removeprefix("torch."), str(model.device))


def load_model(
    spec: str = "embedded", device: str = "auto", dtype: str = "float32", moe: bool = False
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model and the tokenizer that `load` gives."""
    loaded = load(spec, device, dtype, moe)
    return loaded.model, loaded.tokenizer


def require_memory(spec: str, device: str = "auto", dtype: str = "float32") -> Footprint:
    """Memory that a model needs, from its configuration.

    Raises:
        ModelError: there is less; the sentence has the numbers. See `load` for others.
    """
    target = parse_device(device)
    found = footprint(load_config(spec), parse_dtype(dtype))
    if missing := lacking(found, target, free_memory):
        raise ModelError(
            f"{spec} does not fit: {missing}; take --dtype bfloat16, another device, --device {BALANCED} over several "
            "GPUs, or a machine with more memory"
        )
    return found


def parse_dtype(name: str) -> torch.dtype:
    """A torch dtype by name.

    Raises:
        ModelError: there is none of that name.
    """
    found = getattr(torch, name, None)
    if not isinstance(found, torch.dtype):
        raise ModelError(f"unknown dtype {name!r}; use float32, bfloat16 or float16")
    return found


def parse_device(name: str) -> str:
    """The device that a name means; `auto` is the GPU where there is one.

    Raises:
        ModelError: unknown, not here, or `balanced` without accelerate.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name == BALANCED:
        if importlib.util.find_spec("accelerate") is None:
            raise ModelError("device 'balanced' needs accelerate: pip install 'mechanism[hub]'")
        return name
    try:
        kind = torch.device(name).type
    except RuntimeError:
        raise ModelError(f"unknown device {name!r}; use auto, cpu, cuda, cuda:N or {BALANCED}") from None
    if kind == "cuda" and not torch.cuda.is_available():
        raise ModelError(f"device {name!r} is not here: torch sees no GPU; use cpu")
    return name


def verify_weights(folder: Path) -> None:
    """Check a committed model's weights against its card; a folder without a card is taken as it is.

    Raises:
        ModelError: hash mismatch.
    """
    card = folder / CARD
    if card.exists():
        expected = json.loads(card.read_text("utf-8"))["sha256"]
        if sha256((folder / MODEL_FILE).read_bytes()) != expected:
            raise ModelError(
                f"{folder / MODEL_FILE} is corrupted: its sha256 is not the one in {CARD}; "
                "restore it from version control"
            )


def _source(spec: str) -> tuple[str, dict[str, str]]:
    """What transformers loads a model from, and with which revision."""
    where = resolve(spec)
    if Path(where).is_dir():
        return where, {}
    name, _, revision = where.partition("@")
    return name, {"revision": revision} if revision else {}


def save_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path, card: dict) -> None:
    """Write a model as bf16 safetensors with its tokenizer and a card holding the weights' sha256."""
    folder.mkdir(parents=True, exist_ok=True)
    copy.deepcopy(model).to(torch.bfloat16).save_pretrained(folder, max_shard_size="50GB")
    tokenizer.save_pretrained(folder)
    card = card | {"sha256": sha256((folder / MODEL_FILE).read_bytes())}
    (folder / CARD).write_text(json.dumps(card, indent=1, sort_keys=True) + "\n", "utf-8")


def describe(spec: str) -> dict[str, object]:
    """Facts of a model's configuration: architecture, layers, width, experts, vocabulary."""
    config = load_config(spec)
    text = getattr(config, "text_config", config)
    names = {
        "architecture": "model_type",
        "layers": "num_hidden_layers",
        "hidden size": "hidden_size",
        "routed experts per layer": "num_experts",
        "experts per token": "num_experts_per_tok",
        "expert width": "moe_intermediate_size",
        "vocabulary": "vocab_size",
    }
    return {label: getattr(text, name) for label, name in names.items() if getattr(text, name, None) is not None}


def training_run(spec: str) -> str | None:
    """Name of the committed run that made a committed model; None for a model from elsewhere."""
    card = Path(resolve(spec)) / CARD
    if not card.exists():
        return None
    return json.loads(card.read_text("utf-8")).get("name")
