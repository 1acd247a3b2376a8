"""Which experts are a domain's own: beyond chance, and strongly."""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import xarray as xr

from .documents import Documents, Domains
from .domain_inference import DocumentBootstrap, LabelNull
from .domain_table import labelled
from .evidence import Evidence
from .specialisation import Strongest, activation_rate, cwas, lift


class Specialists(NamedTuple):
    """Domain experts of a model.

    Attributes:
        experts: over `(layer, expert)`: `score` (largest CWAS over domains), its `null_mean`, `z` and `q`; `domain`,
            where it is largest; `lift` there; `specialist` (q within the rate) and `strong` (a specialist whose lift
            reaches the fold); `unused`.
        share: share of specialists among all experts; strong: that of strong ones, with its interval, `n` counting
            experts.
        null: 95th percentile, over permuted labels, of the share of experts that reach the fold in some domain.
        null_scores: `(draw, layer, expert)` scores under permuted labels.
    """

    experts: xr.Dataset
    share: float
    strong: Evidence
    null: float
    null_scores: np.ndarray


@dataclass(frozen=True)
class SpecialistTest:
    """Domain experts: those whose largest CWAS over domains lies beyond the null of permuted document labels, at a
    false discovery rate over all experts. Strong ones are selected by that domain at least `fold` times as often as by
    domains on average. The source's definition is not known; this one is ours.

    Intervals resample documents within domains while specialists and their domains stay those of the full data.

    Attributes:
        rate: false discovery rate; fold: lift of a strong one; null: permutations; bootstrap: of documents.
    """

    rate: float = 0.05
    fold: float = 2.0
    null: LabelNull = field(default_factory=LabelNull)
    bootstrap: DocumentBootstrap = field(default_factory=DocumentBootstrap)

    def __call__(self, documents: Documents) -> Specialists:
        """The domain experts among all experts, unused ones included.

        Raises:
            ValueError: a domain with a single document.
        """
        scores = self.null.draws(documents, Strongest(cwas))
        tested = self.null.test(documents, Strongest(cwas)(Domains(documents)), scores)
        rates, lifts = activation_rate(Domains(documents)), lift(Domains(documents))
        best = rates.argmax(-1)
        found = {
            "domain": documents.names[best],
            "lift": _at(lifts, best),
            "specialist": (tested["q"] <= self.rate).values,
            "unused": rates.max(-1) == 0,
        }
        found["strong"] = found["specialist"] & (found["lift"] >= self.fold)
        experts = tested.rename(value="score")[["score", "null_mean", "z", "q"]]
        experts = experts.assign({name: labelled(documents, values) for name, values in found.items()})
        draws = self.bootstrap.draws(documents, lift)
        held = (_at(draws, best) >= self.fold) & found["specialist"]
        chance = (self.null.draws(documents, Strongest(lift)) >= self.fold).mean((1, 2))
        share, size = found["strong"].mean(), found["strong"].size
        strong = Evidence.of_draws(share, held.mean((1, 2)), self.bootstrap.confidence, size)
        null = float(np.quantile(chance, 0.95))
        return Specialists(experts, float(found["specialist"].mean()), strong, null, scores)


def _at(values: np.ndarray, domain: np.ndarray) -> np.ndarray:
    """Values `(..., layer, expert, domain)` at one domain of each expert."""
    index = np.broadcast_to(domain[..., None], (*values.shape[:-1], 1))
    return np.asarray(np.take_along_axis(values, index, -1)[..., 0])
