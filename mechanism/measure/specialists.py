"""Which experts are a domain's own: beyond chance, and strongly."""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import xarray as xr

from .documents import Documents, Domains
from .domain_inference import DocumentBootstrap, LabelNull
from .domain_table import labelled
from .evidence import Evidence
from .seeds import Sampled, over_seeds
from .specialisation import Strongest, activation_rate, cwas, lift


class Specialists(NamedTuple):
    """Domain experts of a model.

    Attributes:
        experts: over `(layer, expert)`: `score` (largest CWAS over domains), its `null_mean`, `z` and `q`; `domain`,
            where it is largest; `lift` there; `specialist` (q within the rate) and `strong` (a specialist whose lift
            reaches the fold); `unused`.
        share: share of specialists among all experts; sampled: that of strong ones, with its draws over documents, and
            under permuted labels the share of experts whose lift reaches the fold in some domain.
        null_scores: `(draw, layer, expert)` scores under permuted labels; lifts: `(draw, layer, expert)` of each
            expert in its domain when documents are drawn anew.
    """

    experts: xr.Dataset
    share: float
    sampled: Sampled
    null_scores: np.ndarray
    lifts: np.ndarray

    @property
    def strong(self) -> Evidence:
        """The share of strong ones in this model alone, against the 95th percentile under permuted labels."""
        return over_seeds([self.sampled])


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
        draws = _at(self.bootstrap.draws(documents, lift), best)
        held = ((draws >= self.fold) & found["specialist"]).mean((1, 2))
        chance = (self.null.draws(documents, Strongest(lift)) >= self.fold).mean((1, 2))
        names = [f"{name} {i}" for i, name in enumerate(documents.domain)]  # texts of one hash: the same documents
        sampled = Sampled(float(found["strong"].mean()), held, len(names), chance, names)
        return Specialists(experts, float(found["specialist"].mean()), sampled, scores, draws)


def _at(values: np.ndarray, domain: np.ndarray) -> np.ndarray:
    """Values `(..., layer, expert, domain)` at one domain of each expert."""
    index = np.broadcast_to(domain[..., None], (*values.shape[:-1], 1))
    return np.asarray(np.take_along_axis(values, index, -1)[..., 0])
