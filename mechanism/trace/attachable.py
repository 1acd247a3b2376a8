"""What cannot be observed, and what observed numbers come from."""

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from .errors import AttachError
from .host import to_host
from .interventions import Intervention, to_json
from .sites import Site


def refuse_unobservable(model: nn.Module, sites: Sequence[Site]) -> None:
    """Refuse models on which hooks would be silently ignored or see only a part.

    Raises:
        AttachError: compiled, without weights, sharded over devices, expert-parallel, or with virtual tokens.
    """
    for one in adapters(model).values():
        if getattr(one, "is_prompt_learning", False):
            raise AttachError(
                f"{type(model).__name__} puts virtual tokens before every text ({type(one).__name__}): routing cannot "
                "be aligned to the text's own tokens"
            )
    for path, module in model.named_modules():
        if type(module).__name__ == "OptimizedModule" or module._compiled_call_impl is not None:
            raise AttachError(
                f"{path or type(model).__name__} is compiled: hooks added now would be ignored; attach to the model "
                "before torch.compile"
            )
    for site in sites:
        if site.weight.is_meta:
            raise AttachError(f"{site.name} has no weights on a device (meta or offloaded); load the model fully")
        if type(site.weight).__name__ == "DTensor" or any(
            getattr(module, "_is_expert_parallel", False) for module in site.experts.modules()
        ):
            raise AttachError(
                f"{site.name} is sharded over processes; routing can be observed on unsharded layers only"
            )


def adapters(model: nn.Module) -> dict[str, Any]:
    """Configurations of the adapters (peft) on a model by name."""
    found = getattr(model, "peft_config", None)
    return dict(found) if isinstance(found, Mapping) else {}


SUPPORTED = ("5.15", "6")


def warn_unsupported(version: str = transformers.__version__) -> None:
    """Warn outside the tested range of transformers; contracts still decide."""
    found = tuple(int(part) for part in version.split(".")[:2])
    low, high = (tuple(int(part) for part in bound.split(".")) for bound in SUPPORTED)
    if not low <= found < (*high, 0):
        warnings.warn(
            f"transformers {version} is outside {SUPPORTED[0]} <= version < {SUPPORTED[1]}, the range tested; "
            "run `mechanism contracts MODEL` before believing a number",
            stacklevel=3,
        )


def provenance(model: nn.Module, interventions: Sequence[Intervention] = (), seed: int = 0) -> dict[str, Any]:
    """What captured numbers come from: model, revision, `weights_hash`, dtype, device, implementations, versions,
    interventions."""
    config = getattr(model, "config", None)
    first = next(model.parameters())
    return {
        "model": str(getattr(config, "_name_or_path", "")) or type(model).__name__,
        "revision": str(getattr(config, "_commit_hash", None)),
        "weights": weights_hash(model),
        "class": type(model).__name__,
        "dtype": str(first.dtype).removeprefix("torch."),
        "device": first.device.type,
        "experts_implementation": str(getattr(config, "_experts_implementation", None)),
        "attention_implementation": str(getattr(config, "_attn_implementation", None)),
        "torch": torch.__version__.split("+")[0],
        "transformers": transformers.__version__,
        "interventions": to_json(interventions),
        "seed": seed,
    } | _adapted(model)


def _adapted(model: nn.Module) -> dict[str, Any]:
    """The adapters that act, and the settings that their weights do not show, such as their strength."""
    if not (held := adapters(model)):
        return {}
    active = getattr(model, "active_adapters", tuple(held))
    names = list(active() if callable(active) else active)
    settings = {name: sorted((k, str(v)) for k, v in vars(held[name]).items()) for name in names}
    state = [any(getattr(m, name, None) is True for m in model.modules()) for name in ("merged", "disable_adapters")]
    digest = hashlib.sha256(repr((settings, state)).encode()).hexdigest()[:16]
    return {"adapters": names, "adapters_settings": digest}


WHOLE, SAMPLED = 1 << 18, 1024


@torch.no_grad()
def weights_hash(model: nn.Module) -> str:
    """Sixteen hexadecimal digits over names, shapes and values of all parameters: every value of those with up to 2^18,
    routers among them, and 1,024 evenly spaced ones of each other. Where the model lies does not count."""
    digest, taken = hashlib.sha256(), list[Tensor]()
    for name, parameter in model.named_parameters():
        digest.update(f"{name} {tuple(parameter.shape)} {parameter.dtype}\n".encode())
        flat = parameter.detach().reshape(-1)[: 0 if parameter.is_meta else None]
        stride = flat.numel() // SAMPLED if flat.numel() > WHOLE else 1
        taken.append(flat[::stride].contiguous().view(torch.uint8))
    for values in to_host([values for values in taken if not values.is_meta]):
        digest.update(values.numpy().tobytes())
    return digest.hexdigest()[:16]


def contents(masks: Mapping[str, Any], means: Mapping[int, Tensor]) -> dict[str, Any]:
    """What named masks and mean outputs hold: SHA-256 of tensors, qualified names of functions."""
    held: dict[str, Any] = {}
    if masks:
        held["masks"] = {name: _content(mask) for name, mask in sorted(masks.items())}
    if means:
        held["means"] = {str(layer): _content(mean) for layer, mean in sorted(means.items())}
    return held


def _content(value: Any) -> str:
    if not isinstance(value, Tensor):
        return getattr(value, "__qualname__", type(value).__name__)
    return hashlib.sha256(value.detach().cpu().contiguous().numpy().tobytes()).hexdigest()[:16]
