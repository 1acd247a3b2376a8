"""What claims D1 to D8 are judged on: evidence, or the reason why there is none."""

from collections.abc import Callable
from typing import Any

from ...measure.evidence import Evidence
from ...measure.specialists import Specialists
from .constant_compute import ComputeGrowth
from .domain_text import MODES
from .driver_experts import Swept
from .driver_tokens import SETTINGS, DriverTokens
from .tables import Space, driver_overlap

Answer = Evidence | str


def specialised(special: Specialists) -> Answer:
    """D1: the share of strong domain experts; the null is of shuffled labels."""
    return special.strong.against(special.null, note=f"{special.share:.0%} of the experts are domain experts.")


def concentrated(swept: Swept) -> Answer:
    """D2: the smallest share of the top experts over the ways of ablation."""
    if set(swept.config.modes) != set(MODES):
        return "not all three ways of ablation were swept"
    table = swept.concentration()
    least = table.loc[table["estimate"].idxmin()]
    return Evidence(*least[["estimate", "low", "high", "experts", "busiest"]])


def different(swept: Swept) -> Answer:
    """D3: share of the drivers in the common language that are domain experts too."""
    table = driver_overlap(swept)
    if table is None:
        return "there is a single domain, and no domain expert"
    return Evidence(*table.iloc[0][["estimate", "low", "high", "experts", "expected", "p"]])


def early(tokens: DriverTokens) -> Answer:
    """D4: relative slope on position, the first token and super experts left out."""
    return tokens.slope(SETTINGS[0])


def clustered(space: Space) -> Answer:
    """D6: neighbourhood purity; p within layers, the null over all experts."""
    if space.member.sum() < 2:
        return "there are fewer than two drivers to compare"
    found = space.tests()
    p = max(found[name, "within"].p for name in ("purity", "silhouette"))
    return space.purity().against(found["purity", "all"].null, p)


def unpredicted(swept: Swept) -> Answer:
    """D7: the routing metric with the largest absolute rank correlation, and the smallest corrected p-value of any."""
    table = swept.predictions().query("kind == 'routing'")
    best = table.loc[table["estimate"].abs().idxmax()]
    found, note = Evidence(*best[["estimate", "low", "high", "n"]]), "the largest of the routing metrics"
    return (found.mapped(lambda r: -r) if found.estimate < 0 else found).against(p=table["holm"].min(), note=note)


def constant(growth: ComputeGrowth) -> Answer:
    """D8: growth of measured time; the null is that of counted FLOPs."""
    return growth.time.against(growth.flops, note="Null: the ratio of the counted FLOPs.")


def claims(**found: Any) -> dict[str, Answer]:
    """Answers to the claims that the given results decide: `special` (domain experts) D1; `swept`, `tokens` and `space`
    (driver experts) D2, D3 and D7, D4, D6; `reweighted` D5; `growth` (constant compute) D8."""
    ways: dict[str, dict[str, Callable[[Any], Answer]]] = {
        "special": {"D1": specialised},
        "swept": {"D2": concentrated, "D3": different, "D7": unpredicted},
        "tokens": {"D4": early},
        "reweighted": {"D5": lambda reweighted: reweighted.evidence()},
        "space": {"D6": clustered},
        "growth": {"D8": constant},
    }
    return {claim: answer(result) for name, result in found.items() for claim, answer in ways[name].items()}
