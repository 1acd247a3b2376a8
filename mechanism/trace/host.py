"""What is read of a device: all that a pass wants to know, by one copy when it ends, so that the host waits once."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def to_host(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The tensors on the CPU, by one copy from each device they lie on."""
    found = {i: t.detach() for i, t in enumerate(tensors) if t.device.type == "cpu"}
    for device in {t.device for t in tensors if t.device.type != "cpu"}:
        # By falling size of an element, so that each begins where its dtype may.
        own = sorted((i for i, t in enumerate(tensors) if t.device == device), key=lambda i: -tensors[i].element_size())
        flat = [tensors[i].detach().contiguous().reshape(-1).view(torch.uint8) for i in own]
        parts = torch.cat(flat).cpu().split([len(part) for part in flat])
        found |= {i: p.view(tensors[i].dtype).view(tensors[i].shape) for i, p in zip(own, parts, strict=True)}
    return [found[i] for i in range(len(tensors))]


class Readout:
    """Questions to a device, each with what is to be done with the answer; asked all at once by `read`."""

    def __init__(self) -> None:
        self._asked: list[tuple[int, Callable[[list[Tensor]], None]]] = []
        self._tensors: list[Tensor] = []

    def ask(self, tensors: Sequence[Tensor], then: Callable[[list[Tensor]], None]) -> None:
        """Read these tensors, and hand their copies on the CPU over."""
        self._asked.append((len(tensors), then))
        self._tensors += tensors

    def read(self) -> None:
        """Copy everything, then answer in the order of the questions."""
        found = iter(to_host(self._tensors))
        for count, then in self._asked:
            then([next(found) for _ in range(count)])


def to_device(values: Sequence, device: torch.device) -> Tensor:
    """A tensor of numbers on a device, for which the host does not wait."""
    return torch.tensor(values).to(device, non_blocking=True)
