"""Whether driver experts are the experts of domains. The numbers of claim D3."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ...measure.causal import Effects, top_count, top_experts
from ...measure.documents import Documents, Domains
from ...measure.overlap import PermutedOverlap, frequency_strata
from ...measure.specialisation import Strongest, cwas
from .driver_experts import Swept

SIZES = (0.05, 0.1, 0.2)
SCORE = Strongest(cwas)
Draws = Sequence[tuple[np.ndarray, np.ndarray]]


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
