"""Tables of pages 20 and 21: domain experts by every measure, domains against languages, where drivers lie."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr
from scipy.stats import spearmanr

from ...measure.agreement import Agreement
from ...measure.crossed import Components, CrossedVariance
from ...measure.documents import Documents, Domains
from ...measure.neighbours import Grouping, GroupTest, cosine_distance, standardised, together
from ...measure.nulls import PermutationTest
from ...measure.overlap import frequency_strata, hypergeometric_overlap
from ...measure.seeds import Sampled, over_seeds
from ...measure.specialisation import Strongest, cwas
from ...measure.specialists import Specialists, SpecialistTest
from ...measure.units import EXPERTS
from .driver_experts import Swept

SIZES = (0.125, 0.25)
SCORE = Strongest(cwas)


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


def strong_by_fold(models: Sequence[Specialists], folds: Sequence[float] = (1.5, 2.0, 3.0, 4.0)) -> pd.DataFrame:
    """Share of domain experts whose domain selects them `fold` times as often as domains do on average: mean over
    models, `low`, `high`, `n` models."""
    rows = {}
    for fold in folds:
        held = [
            (one.experts["specialist"].values, one.experts["lift"].values, one.lifts, one.sampled.units)
            for one in models
        ]
        sampled = [
            Sampled(float((own & (lift >= fold)).mean()), (own & (draws >= fold)).mean((1, 2)), units)
            for own, lift, draws, units in held
        ]
        rows[fold] = over_seeds(sampled).row()
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("fold").reset_index()


def overlapping(swept: Swept, share: float | None = None, everywhere: bool = False) -> Sampled:
    """Share of the drivers that are domain experts (largest CWAS in any domain, as many of each layer) in the common
    language. Draws take documents anew, and then the share from what so few drivers leave open (Jeffreys: Beta of the
    drivers that are and are not, each and a half); chance exchanges experts within a layer and half of activation
    frequency.

    Args:
        share: of each layer's experts in either set; everywhere: drivers on text of all languages.

    Raises:
        ValueError: there is a single domain, and no domain expert.
    """
    if swept.documents is None:
        raise ValueError("there is a single domain, and no domain expert")
    kept = np.arange(swept.found.sizes["sequence"]) if everywhere else swept.in_common
    effects, own = swept.kl("zero", kept), Domains(swept.documents).multiplicity
    rng = np.random.default_rng(swept.seed)

    def sets(effect: np.ndarray, domains: Domains) -> tuple[np.ndarray, np.ndarray]:
        return swept.tops(effect, share).ravel(), swept.tops(SCORE(domains), share).ravel()

    draws = []
    for times in effects.resamples(swept.n_boot, swept.seed):
        again = own * times[np.isin(kept, swept.in_common)]
        if again.any(1).all():
            hit = np.logical_and(*(both := sets(effects.mean(times), Domains(swept.documents, again))))[both[0]]
            draws.append(rng.beta(hit.sum() + 0.5, len(hit) - hit.sum() + 0.5))
    first, second = sets(effects.mean(), Domains(swept.documents))
    strata = frequency_strata(swept.effects(swept.found["selections"].values, swept.in_common).mean(), 2).ravel()
    exchanged = PermutationTest(swept.n_perm, swept.seed).draws(
        lambda order: second[order][first].mean(), len(first), strata
    )
    fewest = min(int(first.sum()), effects.n_documents)
    return Sampled(float(second[first].mean()), np.array(draws), fewest, exchanged, EXPERTS)


def driver_overlap(models: Sequence[Swept]) -> pd.DataFrame | None:
    """`overlapping` over models: `drivers`, on what text their effect is largest, `share` of each layer's experts in
    either set, `estimate`, `low`, `high`, `n` models, `expected` by chance, and `p` of so large an overlap.

    Domain experts are known in the common language alone, and so are the drivers of the first rows, and the frequency.
    The last row has the drivers on all text. None with a single domain.
    """
    if models[0].documents is None:
        return None
    rows = []
    for share, everywhere in (*((share, False) for share in (None, *SIZES)), (None, True)):
        each = [overlapping(own, share, everywhere) for own in models]
        found, text = over_seeds(each), "on all text" if everywhere else f"on text in {models[0].common}"
        expected = float(np.mean([one.chance.mean() for one in each]))
        rows.append({"drivers": text, "share": models[0].share if share is None else share, **found.row(),
                     "expected": expected, "p": found.p})  # fmt: skip
    return pd.DataFrame(rows)


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
    def of(cls, swept: Swept, every: np.ndarray) -> "Space":
        """From the `(layer, expert, d)` mean outputs on text; super experts, unused ones and those that give exactly
        nothing do not take part."""
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

    def together(self) -> Sampled:
        """How much closer drivers are to one another than experts of the same two layers: mean over pairs of
        cosines, in standard deviations of such pairs. Draws choose drivers on other documents, and take some of them
        anew; chance exchanges drivers within layers.

        Raises:
            ValueError: there are fewer than two drivers to compare.
        """
        layer, swept = self.place[:, 0], self.swept
        if self.member.sum() < 2:
            raise ValueError("there are fewer than two drivers to compare")
        near = standardised(1 - cosine_distance(self.points.astype(np.float64)), layer)
        effects, rng = swept.kl("zero"), np.random.default_rng(swept.seed)
        draws = []
        for times in effects.resamples(swept.n_boot, swept.seed):
            drivers = np.flatnonzero(swept.tops(effects.mean(times))[tuple(self.place.T)])
            draws.append(together(near, rng.choice(drivers, len(drivers))))
        own = self.member
        exchanged = PermutationTest(swept.n_perm, swept.seed).draws(
            lambda order: together(near, np.flatnonzero(own[order])), len(own), layer
        )
        fewest, drawn = min(int(own.sum()), effects.n_documents), np.array(draws)[np.isfinite(draws)]
        return Sampled(together(near, np.flatnonzero(own)), drawn, fewest, exchanged, EXPERTS)
