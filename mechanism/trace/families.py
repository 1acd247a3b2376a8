"""A tiny, randomly initialised model of every Mixture-of-Experts causal LM of the installed transformers.

A family is a transformers `model_type` of the causal-LM auto map. It counts as a Mixture of Experts when the source of
its configuration declares a number of routed experts; a multimodal type stands aside for its `*_text` type. Nothing is
imported to find this out. Each model has at most four layers, eight routed experts of which a token gets two (doge:
sixteen and four; llama4_text and zaya allow one only), width 32 and 97 tokens of vocabulary, and needs no network.

transformers initialises for training, which leaves a tiny model's routing all but undecided: router logits are nearly
equal, correction biases are zero, hash tables send every token to expert 0, and some routers and expert biases start at
zero. Here all weights are drawn at unit gain, and every one of those tensors is drawn anew from the seed, so that every
part of a routing rule has an effect that can be seen. Memory that a family leaves uninitialised is found and filled.
"""

import dataclasses
import re
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import (
    CONFIG_MAPPING,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForSeq2SeqLM,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.models.auto.configuration_auto import model_type_to_module_name
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
)
from transformers.utils import logging

from .family_sizes import COMMON, STD, UNUSUAL, VISION, WHOLE, WIDTH

ROUTER_GAIN = 2.0
"""Standard deviation of the router logits of a normalised input."""

IMPLEMENTATIONS = frozenset({"attn_implementation", "experts_implementation"})
"""What a configuration takes besides its fields."""

ROUTED = re.compile(r"^    (?!\w*shared)\w*experts *:", re.MULTILINE)
"""A configuration field that counts routed experts."""

ROUTER_WEIGHT = re.compile(r"\.(router|gate|router_gate)\.")
HASH_TABLE = re.compile(r"\.tid2eid$")
DRAWN: dict[re.Pattern[str], tuple[float, float]] = {
    re.compile(r"(\.(router|gate)\..*|experts?[._]|correction_)bias(es)?$"): (0.0, 0.2),
    re.compile(r"\.per_expert_scale$"): (1.0, 0.2),
    re.compile(r"\.router\.scale$"): (WIDTH**0.5, 0.2),  # gemma4 divides the router's input by the root of its width
}
"""Mean and standard deviation of tensors that start at a constant, or may."""


class FamilyError(RuntimeError):
    """A family cannot be built; the message gives the reason."""


@cache
def families() -> tuple[str, ...]:
    """Model types of the installed transformers' causal LMs with routed experts, sorted."""
    known = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    return tuple(sorted(name for name in known if f"{name}_text" not in known and _counts_experts(name)))


def _counts_experts(family: str) -> bool:
    """Whether the source of a model type's configuration declares a number of routed experts."""
    package = Path(transformers.__file__).parent / "models" / model_type_to_module_name(family).replace(".", "/")
    return any(ROUTED.search(path.read_text(encoding="utf-8")) for path in package.glob("configuration_*.py"))


@cache
def wholes() -> tuple[str, ...]:
    """Model types for images and text that are built whole, their text part an MoE, of the installed transformers."""
    return tuple(name for name in WHOLE if name in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES)


SIDES = ("encoder", "decoder")


@cache
def sides() -> tuple[str, ...]:
    """Encoders and decoders of the installed transformers' encoder-decoder models with routed experts, sorted, such as
    `switch_transformers.encoder`."""
    known = (name for name in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES if _counts_experts(name))
    return tuple(f"{name}.{side}" for name in sorted(known) for side in SIDES)


def tiny_config(family: str, **overrides: Any) -> PreTrainedConfig:
    """Configuration of a family's tiny model.

    Args:
        family: one of `families()`, `wholes()` or `sides()`.
        overrides: fields of the family's configuration, by their own names or transformers' aliases.
    """
    if family in sides():
        return _configured(family.partition(".")[0], overrides)
    if family in wholes():
        return _whole_config(family, overrides)
    if family not in families():
        raise FamilyError(f"{family!r} is no Mixture-of-Experts causal LM of transformers {transformers.__version__}.")
    return _configured(family, overrides)


def _configured(family: str, overrides: dict[str, Any]) -> PreTrainedConfig:
    settings = _settings(family, CONFIG_MAPPING[family], UNUSUAL.get(family, {}) | overrides)
    with _building(family):
        return CONFIG_MAPPING[family](**deepcopy(settings))  # some change the lists they are given


def _whole_config(family: str, overrides: dict[str, Any]) -> PreTrainedConfig:
    """Configuration of a whole model: a tiny text part, a tinier part that sees, and none that hears."""
    kind = CONFIG_MAPPING[family]
    parts: dict[str, Any] = {name: part for name, part in kind.sub_configs.items() if dataclasses.is_dataclass(part)}
    text = parts["text_config"]
    text_family = UNUSUAL.get(text.model_type, {})
    given: dict[str, Any] = {"text_config": _settings(family, text, text_family | overrides)}
    if vision := parts.get("vision_config"):
        given["vision_config"] = {name: value for name, value in VISION.items() if name in _declared(vision)}
    silent = {"audio_config": None} if "audio_config" in parts else {}
    with _building(family):
        return kind(**deepcopy(given | silent))


def _declared(kind: type) -> set[str]:
    return {field.name for field in dataclasses.fields(kind)}


def _settings(family: str, kind: Any, own: dict[str, Any]) -> dict[str, Any]:
    """Fields of a tiny configuration: the common ones that it declares, and its own."""
    declared = _declared(kind)
    settings = {name: value for name, value in COMMON.items() if name in declared}
    for name, value in own.items():
        settings[_field(name, declared, kind.attribute_map)] = value
    if unknown := settings.keys() - declared - IMPLEMENTATIONS:
        raise FamilyError(f"The configuration of {family} has no field {', '.join(sorted(unknown))}.")
    return settings


def _field(name: str, declared: set[str], aliases: dict[str, str]) -> str:
    """The declared field that a name means; some families declare the alias, others what it stands for."""
    stored = aliases.get(name, name)
    alike = (name, stored, *(alias for alias, target in aliases.items() if target == stored))
    return next((other for other in alike if other in declared), name)


def tiny_model(family: str, seed: int = 0, dtype: torch.dtype = torch.float32, **overrides: Any) -> PreTrainedModel:
    """A family's tiny model, in evaluation mode; the same seed gives the same weights. Of an encoder-decoder model the
    part that is named.

    Args:
        family: one of `families()`, `wholes()` or `sides()`.
        seed: of every random number; torch's global generator is left as it was.
        dtype: of the weights, except those that the family keeps in float32, as when it is loaded from a checkpoint.
        overrides: as for `tiny_config`.
    """
    config = tiny_config(family, **overrides)
    with _building(family), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        with _uninitialised_is_nan():
            model = _auto(family).from_config(config, dtype=dtype)
        _keep_float32(model, dtype)
        _decide(model)
    side = family.partition(".")[2]
    return getattr(model, f"get_{side}")().eval() if side else model.eval()


def _auto(family: str) -> Any:
    if family in sides():
        return AutoModelForSeq2SeqLM
    return AutoModelForImageTextToText if family in wholes() else AutoModelForCausalLM


@contextmanager
def _building(family: str) -> Iterator[None]:
    """transformers logs errors only; any exception becomes one sentence about the family."""
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    except FamilyError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or "no reason given"
        raise FamilyError(f"{family} cannot be built: {type(error).__name__}: {reason}") from error
    finally:
        logging.set_verbosity(before)


@contextmanager
def _uninitialised_is_nan() -> Iterator[None]:
    """Memory that torch would leave uninitialised holds NaN, as in torch's deterministic mode."""
    before, warned = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warned)


def _tensors(model: PreTrainedModel) -> dict[str, Tensor]:
    """Parameters and buffers by name."""
    return dict(chain(model.named_parameters(), model.named_buffers()))


def _keep_float32(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Raise what loading a checkpoint would keep in float32; building from a configuration does not."""
    kept = [re.compile(glob.replace("*", ".*")) for glob in model._get_dtype_plan(dtype)]
    for name, tensor in _tensors(model).items():
        if any(pattern.search(name) for pattern in kept):
            tensor.data = tensor.data.float()


@torch.no_grad()
def _decide(model: PreTrainedModel) -> None:
    """Give every tensor that leaves routing undecided a random value, and check that all are finite."""
    tensors = _tensors(model)
    if not any(_weighs_experts(name, tensor) for name, tensor in tensors.items()):
        raise FamilyError(f"{model.config.model_type} cannot be built: its model has no router.")
    for name, tensor in tensors.items():
        _draw(name, tensor, model.config)
        if not tensor.isfinite().all():
            raise FamilyError(f"{model.config.model_type} cannot be built: {name} is not finite.")


def _weighs_experts(name: str, tensor: Tensor) -> bool:
    """Whether a tensor is a weight matrix of a router."""
    return tensor.ndim == 2 and tensor.is_floating_point() and ROUTER_WEIGHT.search(name) is not None


def _draw(name: str, tensor: Tensor, config: PreTrainedConfig) -> None:
    """Draw one parameter or buffer anew if its initial value says nothing."""
    for pattern, (mean, std) in DRAWN.items():
        if pattern.search(name):
            tensor.normal_(mean, std)
            return
    if HASH_TABLE.search(name):
        scores = torch.rand(len(tensor), config.get_text_config().num_local_experts)
        tensor.copy_(scores.argsort(1)[:, : tensor.shape[1]])
    elif _weighs_experts(name, tensor):
        tensor.normal_(0, ROUTER_GAIN * tensor.shape[1] ** -0.5)
    elif tensor.is_floating_point() and (not tensor.isfinite().all() or (tensor.ndim > 1 and not tensor.any())):
        tensor.normal_(0, STD)
