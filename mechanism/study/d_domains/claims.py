"""The evidence on claims D2, D3, D4, D6 and D7, from the tables of a sweep."""

from ...measure.evidence import Evidence
from .driver_experts import Swept
from .driver_overlap import driver_overlap
from .driver_tokens import SETTINGS, DriverTokens, Space


def concentrated(swept: Swept) -> Evidence:
    """D2: the smallest share of the top experts over the ways of ablation."""
    table = swept.concentration()
    least = table.loc[table["estimate"].idxmin()]
    return Evidence(*least[["estimate", "low", "high", "experts", "busiest"]])


def different(swept: Swept) -> Evidence | None:
    """D3: share of the drivers in the common language that are domain experts too; None with a single domain."""
    table = driver_overlap(swept)
    if table is None:
        return None
    row = table.iloc[0]
    return Evidence(*row[["estimate", "low", "high", "experts", "expected", "p"]])


def early(tokens: DriverTokens) -> Evidence:
    """D4: relative slope on position, the first token and super experts left out."""
    return tokens.slope(SETTINGS[0])


def clustered(space: Space) -> Evidence:
    """D6: neighbourhood purity; p within layers, the null over all experts."""
    found = space.tests()
    low, high = space.purity_interval()
    purity = found["purity", "all"]
    p = max(found[name, "within"].p for name in ("purity", "silhouette"))
    return Evidence(purity.value, low, high, purity.n, purity.null, p)


def unpredicted(swept: Swept) -> Evidence:
    """D7: the routing metric with the largest absolute rank correlation, and the smallest corrected p-value of any."""
    table = swept.predictions().query("kind == 'routing'")
    best = table.loc[table["estimate"].abs().idxmax()]
    value, low, high = (float(best[name]) for name in ("estimate", "low", "high"))
    if value < 0:
        value, low, high = -value, -high, -low
    return Evidence(value, low, high, best["n"], p=table["holm"].min(), note="the largest of the routing metrics")
