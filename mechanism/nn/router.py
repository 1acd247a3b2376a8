"""Top-k routing: scores, selection, and what keeps the load of experts even."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from .dispatch import static
from .errors import LayerError

SCORES: dict[str, Callable[[Tensor], Tensor]] = {"softmax": lambda logits: logits.softmax(-1), "sigmoid": torch.sigmoid}
STD = 0.02
"""Standard deviation of initial weights, transformers' `initializer_range`."""


class TopKRouter(nn.Module):
    """Chooses `top_k` of `num_experts` for every row, and weighs them.

    Returns of a call with `(..., d)`: `router_logits` `(row, expert)`; `weights` `(row, slot)` in the dtype of the
    logits, scores of the selected; `indices` `(row, slot)`. Scores are computed in float32 at least.

    Balancing without a loss (Wang et al. 2024, arXiv 2408.15664): with `bias_rate` a correction is added to the scores
    for selection only, and `update_correction` moves it after each step by `bias_rate` towards the mean load.

    Args:
        d: width of a row; num_experts, top_k: sizes.
        scoring: `softmax` over all experts, or `sigmoid` of each.
        normalise: bring a row's weights to the sum 1.
        z_weight: weight of the z-loss, which the trainer adds; 0 for none.
        bias_rate: step of the correction; 0 for none.
        rows_per_token: rows that make up a token (the heads of `MultiHeadMoE`), consecutive; read by `mechanism.trace`.

    Attributes:
        correction: `(expert,)`, or None without `bias_rate`; load: `(expert,)` selections in training since its last
            update, counted only with `bias_rate`.

    Raises:
        LayerError: more slots than experts, no slot, unknown scoring, a negative rate, or one slot with normalised
            weights: every weight would be 1, and the router would get no gradient from the language-model loss.
    """

    correction: Tensor | None
    load: Tensor

    def __init__(
        self,
        d: int,
        num_experts: int,
        top_k: int,
        scoring: str = "softmax",
        normalise: bool = True,
        z_weight: float = 0.0,
        bias_rate: float = 0.0,
        rows_per_token: int = 1,
    ) -> None:
        check_routing(num_experts, top_k, scoring, normalise, z_weight, bias_rate)
        super().__init__()
        self.d, self.num_experts, self.top_k, self.rows_per_token = d, num_experts, top_k, rows_per_token
        self.scoring, self.normalise, self.z_weight, self.bias_rate = scoring, normalise, z_weight, bias_rate
        self.weight = nn.Parameter(torch.empty(num_experts, d))
        self.register_buffer("correction", torch.zeros(num_experts) if bias_rate else None)
        self.register_buffer("load", torch.zeros(num_experts), persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Normal with standard deviation `STD`; no correction."""
        nn.init.normal_(self.weight, std=STD)
        nn.init.zeros_(self.load)
        if self.correction is not None:
            nn.init.zeros_(self.correction)

    def forward(
        self, hidden: Float[Tensor, "... d"]
    ) -> tuple[Float[Tensor, "row expert"], Float[Tensor, "row slot"], Int[Tensor, "row slot"]]:
        logits = F.linear(self.gate_input(hidden), self.weight)
        _check_rows(logits)
        weight, index = self.select(SCORES[self.scoring](logits.to(torch.promote_types(logits.dtype, torch.float32))))
        if self.normalise:
            weight = weight / weight.sum(-1, keepdim=True)
        return logits, weight.to(logits.dtype), index

    def gate_input(self, hidden: Float[Tensor, "... d"]) -> Float[Tensor, "row gate"]:
        """What the gate's matrix is multiplied with: the rows themselves."""
        return hidden.reshape(-1, self.d)

    def select(self, scores: Float[Tensor, "row expert"]) -> tuple[Float[Tensor, "row slot"], Int[Tensor, "row slot"]]:
        """The highest corrected scores: uncorrected scores, and experts."""
        if self.correction is None:
            best = torch.topk(scores, self.top_k, dim=-1)
            return best.values, best.indices
        index = torch.topk(scores + self.correction, self.top_k, dim=-1).indices
        if self.training:
            self.load.index_add_(0, index.reshape(-1), torch.ones_like(index.reshape(-1), dtype=self.load.dtype))
        return scores.gather(-1, index), index

    @torch.no_grad()
    def update_correction(self) -> None:
        """Raise the correction of experts loaded below the mean and lower that of the others, by `bias_rate`; then
        count anew. Without `bias_rate`, or if nothing was counted, nothing changes (the mean is then every load)."""
        if self.correction is not None:
            self.correction += self.bias_rate * torch.sign(self.load.mean() - self.load)
            self.load.zero_()

    def extra_repr(self) -> str:
        return f"d={self.d}, num_experts={self.num_experts}, top_k={self.top_k}, scoring={self.scoring}"


def check_routing(experts: int, top_k: int, scoring: str, normalise: bool, z_weight: float, bias_rate: float) -> None:
    """Refuse, with a LayerError, routing that cannot be or cannot learn; see `TopKRouter`."""
    if not 1 <= top_k <= experts:
        raise LayerError(f"top_k = {top_k} of {experts} experts cannot be selected; choose 1 <= top_k <= experts")
    if scoring not in SCORES:
        raise LayerError(f"unknown scoring {scoring!r}; use {' or '.join(SCORES)}")
    if top_k == 1 and normalise:
        raise LayerError(
            "top_k = 1 with normalised weights makes every weight 1: the language-model loss would not train the "
            "router; set normalise to False"
        )
    if z_weight < 0 or bias_rate < 0:
        raise LayerError(f"z_weight = {z_weight} and bias_rate = {bias_rate} must not be negative")


def _check_rows(logits: Tensor) -> None:
    if logits.shape[0] == 0:
        raise LayerError("the batch is empty: there is no token to route")
    if not (torch.compiler.is_compiling() or static()) and bool(logits.detach().amax().isnan()):
        raise LayerError("router logits are NaN: the layer's input or its gate holds NaN; look at what comes before it")


def balance_loss(logits: Tensor, index: Tensor, scoring: str = "softmax") -> Tensor:
    """Load-balance loss of one layer, `E * sum_e share_e * mean_prob_e` (Switch Transformer, eq. 4, over top-k):
    1 when routing is uniform. Probabilities of sigmoid scores are the scores by their sum (DeepSeek-V3, arXiv
    2412.19437, eq. 19).

    Args:
        logits: `(token, expert)` router logits; index: `(token, slot)` selected experts. A multi-head layer's rows are
            its sub-tokens (arXiv 2404.15045, eq. 10).
        scoring: the router's.
    """
    experts = logits.shape[-1]
    share = torch.zeros(experts, device=logits.device).index_add_(
        0, index.reshape(-1), torch.full((index.numel(),), 1 / index.numel(), device=logits.device)
    )
    scores = SCORES[scoring](logits.float())
    if scoring != "softmax":
        scores = scores / scores.sum(-1, keepdim=True)
    return experts * (share * scores.mean(0)).sum()


def z_loss(logits: Float[Tensor, "row expert"]) -> Float[Tensor, ""]:
    """Mean over rows of the squared log-partition `logsumexp(logits)^2` (ST-MoE, arXiv 2202.08906, eq. 5): it keeps
    logits small."""
    return logits.float().logsumexp(-1).square().mean()
