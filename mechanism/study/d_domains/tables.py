"""Tables of pages 20 and 21: domain experts by every measure, domains against languages, where drivers lie."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from scipy.stats import spearmanr
from torch import Tensor

from ...measure.agreement import Agreement
from ...measure.causal import Effects, top_count, top_experts
from ...measure.crossed import Components, CrossedVariance
from ...measure.documents import Documents, Domains
from ...measure.evidence import Evidence
from ...measure.neighbours import Grouping, GroupTest, cosine_distance
from ...measure.overlap import PermutedOverlap, frequency_strata, hypergeometric_overlap
from ...measure.specialisation import Strongest, cwas
from ...measure.specialists import Specialists, SpecialistTest
from .driver_experts import Swept

SIZES = (0.05, 0.1, 0.2)
SCORE = Strongest(cwas)
Draws = Sequence[tuple[np.ndarray, np.ndarray]]


def stability(documents: Documents, test: SpecialistTest) -> pd.Series:
    """Do two halves of the documents name the same experts?

    `spearman` of the scores; `shared` specialists found by both halves, of `first` and `second`, `expected` by chance
    and `p` (hypergeometric, layer by layer); `same_domain`, the share of experts found by either half with one
    strongest domain in both, and its `chance` if domains were dealt anew to each half.
    """
    first, second = (test(half).experts for half in documents.halves())
    a, b = (one["specialist"].values for one in (first, second))
    found = hypergeometric_overlap(a, b)
    either = (a | b) & ~(first["unused"].values | second["unused"].values)
    domains = [one["domain"].values[either] for one in (first, second)]
    shares = [
        np.array([(own == name).mean() for name in documents.names]) if either.any() else np.nan for own in domains
    ]
    return pd.Series({
        "spearman": float(spearmanr(first["score"].values.ravel(), second["score"].values.ravel()).statistic),
        "first": int(a.sum()), "second": int(b.sum()), "shared": found.shared, "expected": found.expected,
        "p": found.p_more, "same_domain": float((domains[0] == domains[1]).mean()) if either.any() else np.nan,
        "chance": float(np.sum(shares[0] * shares[1])),
    })  # fmt: skip


def expert_table(found: Specialists, measures: xr.Dataset, count: int = 12) -> pd.DataFrame:
    """The domain experts of the largest score, each with every measure in its domain.

    Args:
        measures: of `domain_table`.
    """
    experts, keys = found.experts.to_dataframe().reset_index(), ["layer", "expert", "domain"]
    best = experts[experts["specialist"]].nlargest(count, "score")[[*keys, "q", "strong"]]
    own = measures.drop_vars(["unused", "tokens", "documents"]).to_dataframe().reset_index()
    return best.merge(own, on=keys, how="left")


def decompose(found: xr.Dataset, test: CrossedVariance) -> pd.DataFrame:
    """Variance components of each layer's rates, summed over its experts, with `p_domain` and `p_language`."""
    result = test(found["rate"].values, found["domain"].values)
    summed = {name: getattr(result.components, name).sum(-1) for name in Components._fields}
    table = pd.DataFrame(summed, index=pd.Index(found["layer"].values, name="layer"))
    return table.assign(p_domain=result.p_domain, p_language=result.p_language)


def agree(found: xr.Dataset, measure: Agreement) -> pd.DataFrame:
    """Agreement of each language's domain experts with those of the first language, see `Agreement`; one row each,
    the first language as the ceiling."""
    values = measure(found["rate"].values, found["domain"].values)
    return pd.DataFrame(values._asdict(), index=pd.Index(found["lang"].values, name="lang"))


def driver_overlap(swept: Swept) -> pd.DataFrame | None:
    """Driver experts against as many domain experts (largest CWAS in any domain), by size of the sets: `drivers`, on
    what text their effect is largest, `share` of the experts, `experts`, `shared`, `estimate` (share of the drivers),
    `low`, `high` (documents drawn anew), `expected` and `p` under exchange of experts within a layer and half of
    activation frequency.

    Domain experts are known in the common language alone, and so are the drivers of the first rows, and the frequency.
    The last row has the drivers on all text. None with a single domain.
    """
    if swept.documents is None:
        return None
    domain = SCORE(Domains(swept.documents))
    strata = frequency_strata(swept.effects(swept.found["selections"].values, swept.in_common).mean(), 2)
    every = np.arange(swept.found.sizes["sequence"])
    texts = ((f"on text in {swept.common}", swept.in_common, SIZES), ("on all text", every, (swept.share,)))
    rows = []
    for name, kept, shares in texts:
        effects = swept.kl("zero", kept)
        draws = list(_drawn(swept, swept.documents, effects, np.isin(kept, swept.in_common)))
        for share in shares:
            rows.append({"drivers": name, "share": share, **_row(swept, effects.mean(), domain, draws, share, strata)})
    return pd.DataFrame(rows)


def _drawn(
    swept: Swept, documents: Documents, effects: Effects, common: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Mean effects and domain scores when documents are drawn anew; draws that leave a domain empty do not count.

    Args:
        common: which of the effects' sequences are in the common language.
    """
    own = (documents.codes == np.arange(len(documents.names))[:, None]).astype(np.float64)
    for times in effects.resamples(swept.n_boot, swept.seed):
        domains = own * times[common]
        if domains.any(1).all():
            yield effects.mean(times), SCORE(Domains(documents, domains))


def _row(
    swept: Swept, effect: np.ndarray, domain: np.ndarray, draws: Draws, share: float, strata: np.ndarray
) -> dict[str, Any]:
    count = top_count(int((~swept.left_out).sum()), share)

    def sets(*values: np.ndarray) -> list[np.ndarray]:
        return [top_experts(one, count, swept.left_out) for one in values]

    first, second = sets(effect, domain)
    test = PermutedOverlap(swept.n_perm, swept.seed)(first, second, strata)
    low, high = np.quantile([np.logical_and(*sets(*draw)).sum() / count for draw in draws], [0.025, 0.975])
    return {"experts": count, "shared": test.shared, "estimate": test.shared / count, "low": float(low),
            "high": float(high), "expected": test.expected / count, "p": test.p_more}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Space:
    """Where experts lie: their mean outputs, compared by cosine.

    Attributes:
        swept: the sweep; points: `(expert, d)` of the experts that take part; place: `(layer, expert)` of each, as rows
            of the sweep's tables.
    """

    swept: Swept
    points: np.ndarray
    place: np.ndarray

    @classmethod
    def of(cls, swept: Swept, means: Mapping[int, Tensor]) -> "Space":
        """From `expert_means` of text alone; super experts, unused ones and those that give exactly nothing do not take
        part."""
        experts = swept.effect.shape[1]
        every = np.stack([means[layer][:experts].float().cpu().numpy() for layer in swept.layers])
        part = ~swept.left_out & ~np.isnan(every).any(-1) & (np.linalg.norm(np.nan_to_num(every), axis=-1) > 0)
        return cls(swept, every[part], np.argwhere(part))

    @property
    def member(self) -> np.ndarray:
        """Whether each expert is a driver."""
        return np.asarray(self.swept.is_driver[self.place[:, 0], self.place[:, 1]])

    def tests(self, neighbours: int = 5) -> dict[tuple[str, str], Grouping]:
        """`purity` and `silhouette` of the drivers against permutations over `all` experts and `within` layers.

        Raises:
            ValueError: see `GroupTest`.
        """
        distance = cosine_distance(self.points.astype(np.float64))
        test = GroupTest(self.swept.n_perm, self.swept.seed, neighbours)
        strata = {"all": None, "within": self.place[:, 0]}
        tests = {over: test(distance, self.member, own) for over, own in strata.items()}
        return {(name, over): one for over, found in tests.items() for name, one in found.items()}

    def purity(self, neighbours: int = 5) -> Evidence:
        """Share of drivers among the nearest neighbours of a driver, drivers resampled."""
        far = cosine_distance(self.points.astype(np.float64)) + np.diag(np.full(len(self.points), np.inf))
        near = self.member[np.argsort(far, axis=1, kind="stable")[self.member, :neighbours]]
        draws = np.random.default_rng(self.swept.seed).choice(near.mean(1), (self.swept.n_boot, len(near))).mean(1)
        low, high = np.quantile(draws, [0.025, 0.975])
        return Evidence(float(near.mean()), float(low), float(high), len(near))
