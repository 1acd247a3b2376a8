"""Steering task experts (arXiv 2510.04694, eq. 3 to 5): settings are chosen on dev items and tried on test items beside
every control."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import xarray as xr
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ...corpus.tasks import ChoiceItem
from ...models.choices import ChoiceScores, EditedChoices
from ...models.load import ModelError
from .expert_sets import ExpertFrequencies, expert_frequencies
from .steering_plan import Setting, SteeringConfig, SteeringPlan
from .steering_tasks import Items, SteeringTask

MISSING = -1
Progress = Callable[[str], None]


def steer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: SteeringTask,
    config: SteeringConfig,
    progress: Progress = lambda line: None,
) -> xr.Dataset:
    """Find task experts, choose on dev items, try on test items.

    Returns a dataset: `task_difference`, `language_difference` and `base_rate` of the experts; `dev_hits`
    `(grid, lang, dev_item)`; `hits` `(setting, lang, item)`, 1 for the right choice, -1 where a language lacks the item
    or the model refuses the edit; `margin` `(setting, item)` log-odds of the right choice among all, in nats, mean over
    the languages but the pivot; `moved`, routing weight moved per token and edited layer. Settings are described by
    coordinates `role`, `name`, `layers`, `tau`, `kind`, `strength`, `experts`, `targets`; those of the grid have the
    prefix `grid_`.

    Raises:
        ModelError: no expert passes any threshold, or the model's routers refuse every setting.
        InterventionError: a chosen layer has no router.
    """
    found = expert_frequencies(model, tokenizer, task.texts, task.generic, progress)
    plan = SteeringPlan(found, config)
    grid = [Setting("none", "none"), *plan.grid()]
    if len(grid) == 1:
        raise ModelError(
            f"{task.name}: no expert of layers {plan.windows()} passes a threshold of {min(config.taus)} "
            f"(the largest difference is {found.task.max():.2f}); lower tau"
        )
    scorer = EditedChoices(model, tokenizer, task.chat, seed=config.seed)
    dev = _run(scorer, task, task.dev, grid, lambda line: progress(f"{task.name}, dev: {line}"))
    best = choose(dev["hits"].values[1:], dev["hits"].values[0], _others(task))
    if best is None:
        raise ModelError(
            f"{task.name}: the model's routers refuse every setting ({next(iter(scorer.refused.values()))})"
        )
    trials = plan.trials(grid[1 + best])
    test = _run(scorer, task, task.test, trials, lambda line: progress(f"{task.name}, test: {line}"))
    dev = dev.rename(item="dev_item", setting="grid", hits="dev_hits").drop_vars(["margin", "moved"])
    dev = dev.rename({name: f"grid_{name}" for name in dev.coords if dev[name].dims == ("grid",)})
    return xr.merge([test, dev.rename(cluster="dev_cluster"), _experts(found)], join="exact").assign_attrs(
        task=task.name, pivot=task.pivot, chosen=best, note=scorer.note, top_k=found.slots,
        left_out="; ".join(f"{code}: {reason}" for code, reason in task.left_out.items()),
        refused="; ".join(dict.fromkeys(scorer.refused.values())),
    )  # fmt: skip


def choose(hits: np.ndarray, base: np.ndarray, rows: Sequence[int]) -> int | None:
    """The setting with the best mean accuracy over languages; the first of several, None where all are refused.

    Args:
        hits: `(setting, lang, item)`, missing ones -1; base: `(lang, item)` without an edit; rows: languages to count.
    """
    known = base[list(rows)] != MISSING
    refused = (hits[:, list(rows)] == MISSING)[:, known].all(1)
    if refused.all():
        return None
    counted = np.where(known, hits[:, list(rows)], 0).sum(2) / known.sum(1)
    return int(np.where(refused, -np.inf, counted.mean(1)).argmax())


def _others(task: SteeringTask) -> list[int]:
    return [row for row, code in enumerate(task.languages) if code != task.pivot]


def _run(
    scorer: EditedChoices, task: SteeringTask, items: Items, settings: Sequence[Setting], progress: Progress
) -> xr.Dataset:
    """Hits and margins of the settings, with what describes them."""
    ids = list(dict.fromkeys(item.id for own in items.values() for item in own))
    place = {name: number for number, name in enumerate(ids)}
    flat = [(row, item) for row, own in enumerate(items.values()) for item in own]
    scores = scorer([item for _, item in flat], [one.edit for one in settings], progress)
    where = np.array([row for row, _ in flat]), np.array([place[item.id] for _, item in flat])
    hits, margins = _judge([item for _, item in flat], scores, task.per_byte)
    spread = np.full((2, len(settings), len(items), len(ids)), np.nan)
    spread[0][:, *where], spread[1][:, *where] = hits, margins
    data = {
        "hits": (("setting", "lang", "item"), np.nan_to_num(spread[0], nan=MISSING).astype(np.int8)),
        "margin": (("setting", "item"), _mean(spread[1][:, _others(task)])),
        "moved": ("setting", scores.moved),
    }
    clusters = {item.id: item.cluster for _, item in flat}
    coords = {"lang": list(items), "item": ids, "cluster": ("item", [clusters[name] for name in ids])}
    return xr.Dataset(data, coords | _about(settings))


def _mean(values: np.ndarray) -> np.ndarray:
    """Mean over languages `(setting, lang, item)` of what is there; NaN where nothing is."""
    known = ~np.isnan(values)
    count = known.sum(1)
    return np.where(count > 0, np.where(known, values, 0).sum(1) / np.maximum(count, 1), np.nan)


def _about(settings: Sequence[Setting]) -> dict[str, Any]:
    """Coordinates that describe settings."""
    about: dict[str, Any] = {n: ("setting", [getattr(one, n) for one in settings]) for n in ("role", "name", "kind")}
    about |= {name: ("setting", [float(getattr(one, name)) for one in settings]) for name in ("tau", "strength")}
    about["layers"] = ("setting", [" ".join(map(str, one.layers)) for one in settings])
    about["experts"] = ("setting", [len(one.targets) for one in settings])
    about["targets"] = ("setting", [" ".join(f"{layer}.{expert}" for layer, expert in one.targets) for one in settings])
    return about


def _judge(items: Sequence[ChoiceItem], scores: ChoiceScores, per_byte: bool) -> tuple[np.ndarray, np.ndarray]:
    """Hits and margins `(setting, item)`; -1 and NaN where refused."""
    totals = scores.logprob.astype(np.float64)
    if per_byte:
        totals = totals / np.array([[max(len(choice.encode()), 1) for choice in item.choices] for item in items])
    answer = np.array([item.answer for item in items])
    hits = np.where(np.isnan(totals).any(2), MISSING, np.nan_to_num(totals).argmax(2) == answer)
    right = np.take_along_axis(totals, answer[None, :, None], 2)[..., 0]
    others = np.where(np.arange(totals.shape[2]) == answer[:, None], -np.inf, totals)
    return hits, right - np.logaddexp.reduce(others, 2)


def _experts(found: ExpertFrequencies) -> xr.Dataset:
    axes = ("layer", "expert")
    data = {
        "base_rate": (axes, found.base),
        "task_difference": (axes, found.task),
        "language_difference": (("code", *axes), found.languages),
    }
    return xr.Dataset(data, {"layer": list(found.layers), "code": list(found.codes)})
