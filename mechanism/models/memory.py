"""How much memory a model needs, told before it is loaded, and how much is free."""

import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, PreTrainedModel
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
)

from ..trace.errors import DenseModelError, RouterError
from ..trace.sites import find_sites

PASS_TOKENS = 4096
"""Tokens of one pass; the studies make batches of at most so many."""

PROCESS = 10**9
"""Bytes of a page's process before it loads a model: Python, torch, transformers, the committed corpora."""

_NAMES = {"cpu": "of host memory", "balanced": "of the memory of all GPUs"}
_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Footprint:
    """Memory of a model under study, an estimate.

    Attributes:
        parameters: their number, with that of buffers that are saved; dtype: of the weights; capture: bytes that a pass
            of 4,096 tokens adds.
    """

    parameters: int
    dtype: torch.dtype
    capture: int

    @property
    def weights(self) -> int:
        """Bytes of the weights."""
        return self.parameters * self.dtype.itemsize

    @property
    def needed(self) -> int:
        """Bytes of weights, a pass and the process."""
        return self.weights + self.capture + PROCESS

    def __str__(self) -> str:
        kind = str(self.dtype).removeprefix("torch.")
        weights = f"{self.parameters:,} parameters of {self.dtype.itemsize} bytes ({kind}): {_size(self.weights)}"
        return f"{_size(self.needed)} ({weights}; a pass: {_size(self.capture)}; the process: {_size(PROCESS)})"


def footprint(config: Any, dtype: torch.dtype) -> Footprint:
    """Estimate from the architecture, built without memory.

    Args:
        config: of transformers.
    """
    model = skeleton(config)
    kept = model.state_dict().keys()
    buffers = sum(values.numel() for name, values in model.named_buffers() if name in kept)
    return Footprint(model.num_parameters() + buffers, dtype, _capture(config, routed_experts(model)))


def skeleton(config: Any) -> PreTrainedModel:
    """A model without weights."""
    with torch.device("meta"):
        return auto_class(config).from_config(config)


def auto_class(config: Any) -> Any:
    """What transformers builds a model of a configuration with: a causal language model, or the whole model for images
    and text that the checkpoint is one of (Qwen3-VL-MoE, Llama 4), which takes text alone as well."""
    known = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES.get(config.model_type)
    whole = known in (config.architectures or ()) or config.model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    return AutoModelForImageTextToText if known and whole else AutoModelForCausalLM


def routed_experts(model: nn.Module) -> int:
    """Routed experts of the layer that has most, found as capture finds them; 0 for a dense model."""
    try:
        return max(site.num_experts for site in find_sites(model))
    except DenseModelError:
        return 0
    except RouterError:
        return 2  # it routes in a way that attaching names


def lacking(found: Footprint, device: str, free: Callable[[str], int]) -> str:
    """What is missing to hold a model on a device, empty when it fits.

    Args:
        device: `cpu`, `cuda`, `cuda:N`, or `balanced` over all GPUs; a model for one GPU passes through host memory.
        free: bytes that are free there; see `free_memory`.
    """
    wanted = {device: found.needed - (0 if device == "cpu" else PROCESS)}
    if device.startswith("cuda"):
        wanted["cpu"] = found.weights + PROCESS
    short = {place: free(place) for place, size in wanted.items() if size > free(place)}
    told = " and ".join(f"{_size(size)} {_NAMES.get(place, f'on {place}')} is free" for place, size in short.items())
    return f"it needs about {found}, and {told}" if short else ""


def free_memory(device: str) -> int:
    """Bytes that are free on a device; on `cpu` what the kernel can give, or what is left of a container's limit."""
    if device.startswith("cuda"):
        return torch.cuda.mem_get_info(torch.device(device))[0]
    if device == "balanced" and torch.cuda.device_count():
        return sum(torch.cuda.mem_get_info(i)[0] for i in range(torch.cuda.device_count()))
    return min(psutil.virtual_memory().available, _left_of_limit())


def peak_memory() -> int:
    """Most bytes of memory that this process held. `getrusage` is asked only where the kernel does not say: a process
    inherits there what the one that started it held."""
    try:
        lines = Path("/proc/self/status").read_text("utf-8").splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else 1024 * most


def _capture(config: Any, experts: int) -> int:
    """Bytes that a pass adds, in float32: the model's logits, a copy and their log-probabilities; hidden states; and
    of each layer router logits, probabilities, counts (64 bit) and weights."""
    text = config.get_text_config()
    layers = int(getattr(text, "num_hidden_layers", 0))
    per_token = 3 * 4 * int(getattr(text, "vocab_size", 0))
    per_token += 4 * (layers + 1) * int(getattr(text, "hidden_size", 0))
    return PASS_TOKENS * (per_token + 20 * layers * experts)


def _left_of_limit() -> int:
    limit, used = _CGROUP / "memory.max", _CGROUP / "memory.current"
    try:
        return int(limit.read_text("utf-8")) - int(used.read_text("utf-8"))
    except (OSError, ValueError):  # no limit reads "max"
        return 1 << 62


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
