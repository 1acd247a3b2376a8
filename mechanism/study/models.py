"""Models by name: committed with the report, on disk, or on a hub."""

import copy
import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from ..corpus.library import DATA
from ..corpus.store import sha256
from ..nn import auto

MODELS = DATA / "models"
MODEL_FILE, CARD = "model.safetensors", "card.json"
_EXPERT_FIELDS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")


class ModelError(ValueError):
    """A model that cannot be used here; the sentence says which and what to do."""


def resolve(spec: str) -> str:
    """Folder of a committed model's name or of a path; a hub id stays as it is.

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
    if spec.startswith((".", "/", "~")) or spec.count("/") != 1:
        known = ", ".join(sorted(p.parent.name for p in MODELS.glob("*/config.json")))
        raise ModelError(f"no model at {spec!r}; committed models: {known}; or give a folder or a hub id owner/name")
    return spec


def load_model(
    spec: str = "embedded", device: str = "auto", dtype: str = "float32", moe: bool = False
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A causal language model and its tokenizer, in evaluation mode.

    Args:
        spec: a committed model's name, a folder, or a hub id.
        device: `auto` takes the GPU where there is one.
        dtype: torch dtype name.
        moe: refuse a model without routed experts.

    Raises:
        ModelError: no such model, no network for a hub id, a dense model where `moe`, damaged weights.
    """
    precision = parse_dtype(dtype)
    where = resolve(spec)
    verify_weights(Path(where))
    transformers_logging.disable_progress_bar()
    auto.register()
    try:
        config = AutoConfig.from_pretrained(where)
        if moe and not is_moe(config):
            raise ModelError(f"{spec} is a dense model ({config.model_type}): it has no routed experts to study")
        model = AutoModelForCausalLM.from_pretrained(where, dtype=precision)
        tokenizer = AutoTokenizer.from_pretrained(where)
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token or tokenizer.bos_token
    except (OSError, SafetensorError) as error:
        raise ModelError(_why(spec, where, error)) from error
    target = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    return model.to(target).eval(), tokenizer


def parse_dtype(name: str) -> torch.dtype:
    """A torch dtype by name.

    Raises:
        ModelError: there is none of that name.
    """
    found = getattr(torch, name, None)
    if not isinstance(found, torch.dtype):
        raise ModelError(f"unknown dtype {name!r}; use float32, bfloat16 or float16")
    return found


def is_moe(config) -> bool:
    """Whether a transformers configuration has routed experts."""
    text = getattr(config, "text_config", config)
    return any((getattr(text, name, None) or 0) > 1 for name in _EXPERT_FIELDS)


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


def _why(spec: str, where: str, error: Exception) -> str:
    if where == spec and not Path(where).exists():
        return (
            f"cannot get {spec!r} from the hub ({type(error).__name__}); check the id and the network, unset "
            "HF_HUB_OFFLINE if it is set, or download the model and give its folder"
        )
    return f"the model in {where} cannot be loaded: {str(error).splitlines()[0]}"


def save_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path, card: dict) -> None:
    """Write a model as bf16 safetensors with its tokenizer and a card holding the weights' sha256."""
    folder.mkdir(parents=True, exist_ok=True)
    copy.deepcopy(model).to(torch.bfloat16).save_pretrained(folder, max_shard_size="50GB")
    tokenizer.save_pretrained(folder)
    card = card | {"sha256": sha256((folder / MODEL_FILE).read_bytes())}
    (folder / CARD).write_text(json.dumps(card, indent=1, sort_keys=True) + "\n", "utf-8")


def describe(spec: str) -> dict[str, object]:
    """Facts of a model's configuration: architecture, layers, width, experts, vocabulary."""
    config = AutoConfig.from_pretrained(resolve(spec))
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
