"""The evidence on claims D2, D3, D4, D6 and D7, as rows for `report.record`."""

from typing import Any

from .driver_experts import Swept
from .driver_overlap import driver_overlap
from .driver_tokens import SETTINGS, DriverTokens, Space

Evidence = dict[str, Any]


def concentrated(swept: Swept) -> Evidence:
    """D2: the smallest share of the top experts over the ways of ablation."""
    table = swept.concentration()
    least = table.loc[table["estimate"].idxmin()]
    return {"estimate": least["estimate"], "low": least["low"], "high": least["high"], "n": int(least["experts"]),
            "null": least["busiest"]}  # fmt: skip


def different(swept: Swept) -> Evidence | None:
    """D3: share of the drivers in the common language that are domain experts too; None with a single domain."""
    table = driver_overlap(swept)
    if table is None:
        return None
    row = table.iloc[0]
    return {"estimate": row["estimate"], "low": row["low"], "high": row["high"], "n": int(row["experts"]),
            "null": row["expected"], "p": row["p"]}  # fmt: skip


def early(tokens: DriverTokens) -> Evidence:
    """D4: relative slope on position, the first token and super experts left out."""
    row = tokens.slopes().loc[SETTINGS[0]]
    return {**row[["estimate", "low", "high", "null", "p"]].to_dict(), "n": int(row["n"])}


def clustered(space: Space) -> Evidence:
    """D6: neighbourhood purity; p within layers, the null over all experts."""
    found = space.tests()
    low, high = space.purity_interval()
    purity = found["purity", "all"]
    p = max(found[name, "within"].p for name in ("purity", "silhouette"))
    return {"estimate": purity.value, "low": low, "high": high, "n": purity.n, "null": purity.null, "p": p}


def unpredicted(swept: Swept) -> Evidence:
    """D7: the routing metric with the largest absolute rank correlation, and the smallest corrected p-value of any."""
    table = swept.predictions().query("kind == 'routing'")
    best = table.loc[table["estimate"].abs().idxmax()]
    value, low, high = (float(best[name]) for name in ("estimate", "low", "high"))
    if value < 0:
        value, low, high = -value, -high, -low
    return {"estimate": value, "low": low, "high": high, "n": int(best["n"]), "p": float(table["holm"].min())}
