"""The article's thesis (P4): loss against parameters for one model of many languages, with experts or dense, and for a
dense model a language. Every model takes as many steps, each with as many sequences a language."""

import numpy as np
import pandas as pd

from ...measure.evidence import Evidence
from .run import KINDS, Thesis, alone, together
from .tables import Experiment

ALONE = "a dense model a language"


def needed(thesis: Thesis) -> list[str]:
    """The cells that P4 is judged on."""
    ends = thesis.languages[0], thesis.languages[-1]
    return [
        *(together(ends[0], kind, thesis.goal(kind)) for kind in KINDS),
        *(together(ends[1], kind, size) for kind in KINDS for size in thesis.sizes(kind)),
    ]


def table(x: Experiment) -> pd.DataFrame:
    """A row for each kind of model, number of languages and size that was trained: `parameters` of the feed-forward
    layers that are stored, of all models together, and `active`, those that a token passes; `all parameters` stored;
    bits per byte on the languages in common, `loss` with `low` and `high` over the `n` seeds of which all models are
    there."""
    thesis = _thesis(x)
    common, rows = x.grid.languages[: thesis.languages[0]], []

    def row(kind: str, count: int, size: int, cells: list[str], models: int) -> None:
        if not all(x.made[cell] for cell in cells):
            return
        first = x.made[cells[0]][0].result()
        idle = first["parameters"] - first["active_parameters"]
        loss = pd.concat([x.losses(c, langs=x.grid.codes(x.grid.cells[c])[: len(common)]) for c in cells], axis=1)
        if not len(by_seed := loss.dropna().mean(axis=1).to_numpy()):
            return
        mean = x.seed_mean(by_seed) if len(by_seed) > 1 else Evidence(float(by_seed.mean()), np.nan, np.nan, 1)
        rows.append(
            {
                "model": kind, "languages": count, "size": size, "parameters": models * first["feed_forward"],
                "active": first["feed_forward"] - idle, "all parameters": models * first["parameters"],
                **mean.row("loss"),
            }
        )  # fmt: skip

    for count in thesis.languages:
        for kind in KINDS:
            for size in thesis.sizes(kind):
                row(kind, count, size, [together(count, kind, size)], 1)
        for size in thesis.alone:
            row(ALONE, count, size, [alone(code, size) for code in common], count)
    columns = ["model", "languages", "size", "parameters", "active", "all parameters", "loss", "low", "high", "n"]
    return pd.DataFrame(rows, columns=columns)


def growth(x: Experiment, kind: str) -> np.ndarray:
    """Logarithm of the factor by which the feed-forward parameters of a kind of model grow for ten times the languages
    at equal loss on those in common, by seed: from the middle size of few languages to where the losses of many, joined
    by straight lines over the logarithm of the parameters, first reach its loss.

    Raises:
        ValueError: in some seed the loss to reach lies outside of what the sizes of many languages reach.
    """
    thesis = _thesis(x)
    few, many = thesis.languages[0], thesis.languages[-1]
    cells = [together(few, kind, thesis.goal(kind)), *(together(many, kind, size) for size in thesis.sizes(kind))]
    common = x.grid.languages[:few]
    losses = pd.DataFrame({cell: x.losses(cell, langs=common) for cell in cells}).dropna().to_numpy()
    own, *sizes = (np.log(x.made[cell][0].result()["feed_forward"]) for cell in cells)
    reached = [_crossing(goal, np.array(sizes), curve) for goal, *curve in losses]
    if outside := [at for at in reached if not isinstance(at, float)]:
        told = f"is reached by {' and by '.join(sorted(set(outside)))} in {len(outside)} of {len(losses)} seeds"
        mean = losses.mean(0)
        raise ValueError(
            f"{kind}: the loss to reach, {mean[0]:.3f}, {told} (those of {many} languages have, on average, "
            f"{', '.join(f'{loss:.3f}' for loss in mean[1:])})"
        )
    return (np.array(reached, np.float64) - own) / np.log10(many / few)


def _crossing(goal: float, sizes: np.ndarray, losses: np.ndarray | list[float]) -> float | str:
    """Where a curve first reaches a loss, or which sizes do."""
    curve = np.asarray(losses)
    if (curve < goal).all():
        return "every size"
    for left in range(len(sizes) - 1):
        if curve[left] >= goal >= curve[left + 1] and curve[left] > curve[left + 1]:
            part = (curve[left] - goal) / (curve[left] - curve[left + 1])
            return float(sizes[left] + part * (sizes[left + 1] - sizes[left]))
    return "no size"


def spared(x: Experiment) -> Evidence:
    """P4: the growth of a dense model over that of one with experts.

    Raises:
        ValueError: see `growth`; of both kinds.
    """
    found, outside = {}, []
    for kind in KINDS:
        try:
            found[kind] = growth(x, kind)
        except ValueError as error:
            outside.append(str(error))
    if outside:
        raise ValueError("; ".join(outside))
    each = {kind: x.seed_mean(own).mapped(np.exp) for kind, own in found.items()}
    told = (f"{kind} x{own.estimate:.3g} [{own.low:.3g}, {own.high:.3g}]" for kind, own in each.items())
    ratio = x.seed_mean(found["dense"] - found["experts"]).mapped(np.exp)
    return ratio.against(1.0, note=f"growth for ten times the languages: {', '.join(told)}")


def _thesis(x: Experiment) -> Thesis:
    assert x.grid.thesis is not None, "a grid with cells of the thesis"
    return x.grid.thesis
