"""Muon for matrices (stacks of expert matrices included) and AdamW for everything else, as one optimiser."""

import torch
from torch import Tensor, nn

# Quintic Newton-Schulz coefficients of Muon (Jordan et al. 2024): singular values are driven to about 1 in five steps.
_A, _B, _C = 3.4445, -4.7750, 2.0315


def orthogonalise(matrices: Tensor) -> Tensor:
    """Approximate nearest semi-orthogonal matrices of `(..., rows, columns)` by five Newton-Schulz iterations."""
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = _A * x + (_B * gram + _C * gram @ gram) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised per matrix (Jordan et al. 2024), scaled by `0.2 sqrt(max(rows, columns))` so that a
    learning rate for AdamW fits (Moonshot, arXiv 2502.16982, eq. 4). torch.optim.Muon takes two-dimensional
    parameters only; experts are stored as `(expert, rows, columns)`.

    Args:
        lr: learning rate; momentum: Nesterov momentum; weight_decay: decoupled; dtype: of the Newton-Schulz products.
    """

    def __init__(
        self, params, lr: float, momentum: float = 0.95, weight_decay: float = 0.0, dtype: torch.dtype = torch.float32
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.dtype = dtype

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for alike in _alike([p for p in group["params"] if p.grad is not None]):
                for p, update in zip(alike, _together([self._direction(p, group) for p in alike]), strict=True):
                    self._move(p, update.to(p.dtype), group)

    def _direction(self, p: Tensor, group: dict) -> Tensor:
        assert p.grad is not None
        buffer = self.state[p].setdefault("momentum", torch.zeros_like(p))
        buffer.lerp_(p.grad, 1 - group["momentum"])
        return p.grad.lerp(buffer, group["momentum"]).to(self.dtype)

    def _move(self, p: Tensor, update: Tensor, group: dict) -> None:
        rate, scale = group["lr"], 0.2 * max(p.shape[-2:]) ** 0.5
        p.mul_(1 - rate * group["weight_decay"])
        if isinstance(rate, Tensor):  # as alpha it would be read by the host
            p.sub_(update * (rate * scale))
        else:
            p.add_(update, alpha=-rate * scale)


def _alike(params: list[nn.Parameter]) -> list[list[nn.Parameter]]:
    """Parameters that are orthogonalised together: on a GPU all of one shape, since alone they are thousands of tiny
    kernels a step."""
    groups: dict[tuple, list[nn.Parameter]] = {}
    for i, p in enumerate(params):
        groups.setdefault(tuple(p.shape[-2:]) if p.is_cuda else (i,), []).append(p)
    return list(groups.values())


def _together(directions: list[Tensor]) -> list[Tensor]:
    """`orthogonalise` of matrices or stacks of one shape, as one stack if they are several."""
    if len(directions) == 1:
        return [orthogonalise(directions[0])]
    stacks = [direction.reshape(-1, *direction.shape[-2:]) for direction in directions]
    parts = orthogonalise(torch.cat(stacks)).split([len(stack) for stack in stacks])
    return [part.view(direction.shape) for part, direction in zip(parts, directions, strict=True)]


def build_optimisers(
    model: nn.Module, lr: float, weight_decay: float, dtype: torch.dtype = torch.float32
) -> list[torch.optim.Optimizer]:
    """Muon for attention and feed-forward matrices; fused AdamW for embeddings, routers and norms. A CUDA graph can
    hold both."""
    matrices, others = [], []
    for name, p in model.named_parameters():
        hidden = p.ndim >= 2 and not any(part in name for part in ("embed", "lm_head", "gate.weight", "router.weight"))
        (matrices if hidden else others).append(p)
    return [
        Muon(matrices, lr=lr, weight_decay=weight_decay, dtype=dtype),
        torch.optim.AdamW(others, lr=lr, betas=(0.9, 0.95), weight_decay=0.0, fused=True, capturable=others[0].is_cuda),
    ]
