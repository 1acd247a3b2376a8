"""Task experts steered, chosen on dev items and tried on test items: of word problems, on which the claims are judged,
and of a domain beside them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ...corpus import word_problems
from ...corpus.library import load
from ...corpus.store import CorpusError, sha256
from ...measure.evidence import Cell, Evidence
from ...measure.importance import frequency_difference
from ...models.choices import EditedChoices
from ...models.load import ModelError, model_hash
from ...models.passes import encode, padding_token, room, routed_tokens
from ...models.work import Work, padded
from ...trace import find_sites
from ...trace.restart import decoder_layers
from ..base.records import texts_hash
from ..base.study import Study, plain
from ..base.trials import attempt, choose, known_mean, spread
from . import steering_results
from .steering_plan import METHODS, UNEDITED, SteeringConfig, SteeringPlan
from .steering_results import MISSING, SteeringResults, gain_over
from .steering_tasks import SteeringTask, TaskConfig, make_task

GENERIC, DOMAIN = "udhr", "tech"
TASKS = ("word problems", "domain")
FULL: dict[str, Any] = {"dev": 200, "test": 300, "segments": 200}
# Languages of the second task in the sample: those of its corpus with most items, and one of another script.
FEW = ("en", "de", "fr", "el")
VERSION = 2
BATCH = 8192  # tokens of text in a pass
RECORDED = ("soft", "hard")
"""Methods that every record of this version has tried; others have to be in its address."""


def expert_frequencies(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: Sequence[str],
    generic: Mapping[str, Sequence[str]],
) -> xr.Dataset:
    """How often tokens select the experts on generic text of a language, and what task and other languages add to that
    (arXiv 2510.04694, eq. 3).

    Args:
        task: texts; generic: texts by language, the pivot's first.

    Returns a dataset: `base_rate` and `task_difference` `(layer, expert)`, `language_difference`
    `(code, layer, expert)`; attributes `depth`, the number of decoder layers, and `top_k`.

    Raises:
        DenseModelError: the model has no routers.
    """
    padding, most = padding_token(tokenizer), room(model)
    found = {
        name: routed_tokens(model, encode(tokenizer, texts, most), padding, BATCH).rates()
        for name, texts in {"task": task, **generic}.items()
    }
    pivot, *others = generic
    differences = {name: frequency_difference(found[name], found[pivot]) for name in ("task", *others)}
    sites, axes = find_sites(model), ("layer", "expert")
    data = {
        "base_rate": (axes, found[pivot].mean(0)),
        "task_difference": (axes, differences["task"]),
        "language_difference": (("code", *axes), np.stack([differences[code] for code in others])),
    }
    coords = {"layer": [site.layer for site in sites], "code": others}
    about = {"depth": len(decoder_layers(model)), "top_k": min(site.top_k for site in sites)}
    return xr.Dataset(data, coords, about)


def steer(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, task: SteeringTask, config: SteeringConfig
) -> xr.Dataset:
    """Find task experts, choose on dev items, try on test items.

    Returns a dataset: what `expert_frequencies` finds; `dev_hits` `(grid, lang, dev_item)`; `hits`
    `(setting, lang, item)`, 1 for the right choice, -1 where a language lacks the item or the model refuses the edit;
    `margin` `(setting, item)`, see `margin`, mean over the languages but the pivot; `moved`, routing weight moved per
    token and edited layer. Settings are described by coordinates `role` (`none`, `chosen`, `dose`, `window`, `control`
    or `random`), `name`, `layers`, `tau`, `kind`, `strength`, `experts`, `targets`; those of the grid have the prefix
    `grid_`.

    Raises:
        ModelError: no expert passes any threshold, or the model's routers refuse every setting.
        InterventionError: a chosen layer has no router.
    """
    found = expert_frequencies(model, tokenizer, task.texts, task.generic)
    plan = SteeringPlan(found, config)
    grid = plan.grid()
    if not grid:
        raise ModelError(
            f"{task.name}: no expert of layers {plan.windows()} passes a threshold of {min(config.taus)} "
            f"(the largest difference is {float(found['task_difference'].max()):.2f}); lower tau"
        )
    scorer = EditedChoices(model, tokenizer, task.chat, seed=config.seed)
    others = [row for row, code in enumerate(task.languages) if code != task.pivot]
    tried = [UNEDITED, *(one.as_setting("grid", str(number)) for number, one in enumerate(grid))]
    dev = _parallel(attempt(scorer, task.dev, tried, task.languages if task.per_byte else ()), others)
    best = choose(dev["hits"].where(dev["hits"] != MISSING).values[1:, others])
    if best is None:
        raise ModelError(
            f"{task.name}: the model's routers refuse every setting ({next(iter(scorer.refused.values()))})"
        )
    test = attempt(scorer, task.test, plan.trials(grid[best]), task.languages if task.per_byte else ())
    dev = dev.rename(item="dev_item", setting="grid", hits="dev_hits", cluster="dev_cluster")
    dev = dev.drop_vars(["margin", "moved"])
    dev = dev.rename({name: f"grid_{name}" for name in dev.coords if dev[name].dims == ("grid",)})
    return xr.merge([_parallel(test, others), dev, found], join="exact").assign_attrs(
        task=task.name, pivot=task.pivot, chosen=best, note=scorer.note, top_k=found.attrs["top_k"],
        left_out="; ".join(f"{code}: {reason}" for code, reason in task.left_out.items()),
        refused="; ".join(dict.fromkeys(scorer.refused.values())),
    )  # fmt: skip


def _parallel(found: xr.Dataset, others: Sequence[int]) -> xr.Dataset:
    """What `attempt` finds of parallel items, by language; margins are the mean over some of the languages."""
    hits, margins = (spread(found[n].values, found["group"].values, found["id"].values) for n in ("hit", "margin"))
    data = {
        "hits": (("setting", "lang", "item"), np.nan_to_num(hits, nan=MISSING).astype(np.int8)),
        "margin": (("setting", "item"), known_mean(margins[:, others], 1)),
    }
    clusters = dict(zip(found["id"].values, found["cluster"].values, strict=True))
    coords = {"lang": pd.unique(found["group"].values), "item": list(clusters)}
    kept = found[["moved"]].drop_vars(["group", "id", "cluster"], errors="ignore")
    return xr.Dataset(data, coords | {"cluster": ("item", list(clusters.values()))}).merge(kept)


def task_study(
    task: str,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    spec: str,
    dtype: str = "float32",
    max_segments: int = 12,
    languages: tuple[str, ...] | None = None,
    generic: str = GENERIC,
    domain: str = DOMAIN,
    layers: tuple[int, ...] | None = None,
    seed: int = 0,
) -> Study:
    """Steering on one of `TASKS`; see `steer` for what a result holds. The full one tries many items in all languages
    and every window of layers.

    Args:
        spec, dtype: of the model, for the address of the record.
        max_segments: items per language and split of the sample, which of the domain has the main comparison alone.
        languages: of items and generic text; generic: corpus whose parallel text is the base; domain: of the second
            task; layers: to steer in, chosen on dev items without them; seed: of items, random experts and ties.

    Raises:
        CorpusError: no such corpus, or too little text; ValueError: fewer than ten items.
    """
    (many, every), (read, tried), texts = _asked(task, max_segments, languages, generic, domain, layers, seed)
    key = {"study": f"steering/{task}", "version": VERSION, "model": model_hash(spec), "dtype": dtype}
    key |= {"read": plain(many), "tried": plain(every)}
    added = [name for name in METHODS if name not in RECORDED]
    corpora = texts_hash([load(generic), load(domain)])
    templates = sha256(Path(word_problems.__file__).with_suffix(".yaml").read_bytes())[:8]
    return Study(
        key | ({"methods": added} if added else {}), corpora + templates,
        lambda: steer(model, tokenizer, make_task(tokenizer, many, *texts), every),
        lambda: steer(model, tokenizer, make_task(tokenizer, read, *texts), tried),
        f"mechanism notebooks --only 11 --parameter model={spec} --parameter profile=full", spec,
    )  # fmt: skip


def _asked(
    task: str, max_segments: int = 12, languages: tuple[str, ...] | None = None, generic: str = GENERIC,
    domain: str = DOMAIN, layers: tuple[int, ...] | None = None, seed: int = 0,
) -> tuple[tuple[TaskConfig, SteeringConfig], tuple[TaskConfig, SteeringConfig], tuple[str, ...]]:  # fmt: skip
    """What is read and tried for the full result, for the sample, and the corpora; arguments as of `task_study`."""
    read = TaskConfig(languages, dev=max_segments, test=max_segments, seed=seed)
    tried = SteeringConfig(layers=layers, seed=seed)
    full = replace(read, **FULL), replace(tried, taus=(0.1, 0.2, 0.3, 0.4, 0.5), widths=tuple(range(1, 9)))
    if task == TASKS[0]:
        return full, (read, tried), (generic,)
    read = replace(read, languages=languages or (FEW if domain == DOMAIN else None))
    return full, (read, replace(tried, taus=(0.1, 0.2, 0.3), strengths=(0.5,), doses=(), widths=())), (generic, domain)


def work(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, spec: str, dtype: str, profile: str, **options: Any
) -> list[Work]:
    """Work of `study` at most, arguments as there; none of what is recorded. How many settings there are depends on
    which experts are found; each is taken to act from the first layer on.

    Raises:
        CorpusError: no such corpus, or too little text for any task.
    """
    found, told, layers = list[Work](), list[Exception](), len(find_sites(model))
    for task in TASKS:
        if profile != "small" and task_study(task, model, tokenizer, spec, dtype, **options).recorded() is not None:
            continue
        full, sample, texts = _asked(task, **options)
        read, tried = full if profile == "full" else sample
        try:
            made = make_task(tokenizer, read, *texts)
        except CorpusError as error:
            told.append(error)
            continue
        texts_of = [encode(tokenizer, own, room(model)) for own in (made.texts, *made.generic.values())]
        passed = sum(padded(list(map(len, ids)), BATCH) for ids in texts_of)
        scorer = EditedChoices(model, tokenizer, made.chat)
        dev, test = (scorer.tokens([item for own in items.values() for item in own]) for items in (made.dev, made.test))
        settings = tried.most
        found += [
            Work("routes", float(passed * layers)),
            Work("chooses", float((dev * settings[0] + test * settings[1]) * layers), at_most=True),
        ]
    if len(told) == len(TASKS):
        raise told[0]
    return found


@dataclass
class Steered:
    """What the page shows, and its claims are judged on.

    Attributes:
        results: by task; told: the sentence that says why there is none, by task.
        seeds: by task and name, the full results of models of other training seeds, where this is a full one.
        awaits: command that makes the full result of the word problems, empty where it is the one in `results`.
    """

    results: dict[str, SteeringResults] = field(default_factory=dict)
    seeds: dict[str, dict[str, SteeringResults]] = field(default_factory=dict)
    told: dict[str, str] = field(default_factory=dict)
    awaits: str = ""

    def claims(self) -> dict[str, Evidence | str]:
        """Evidence on R6, R7 and R8, from word problems, or the reason why there is none; over the models of all
        training seeds, where they are recorded."""
        if TASKS[0] in self.told:
            return dict.fromkeys(("R6", "R7", "R8"), self.told[TASKS[0]])
        return steering_results.claims(self.models(TASKS[0]))

    def models(self, task: str) -> list[SteeringResults]:
        """The result of a task, and behind it those of the other training seeds."""
        return [self.results[task], *self.seeds[task].values()]

    def gains(self, task: str) -> pd.DataFrame:
        """Gain of the chosen setting of each training seed's model, in points; empty where there is one alone."""
        names = [f"{name}, other seed" for name in self.seeds[task]]
        if not names:
            return pd.DataFrame()
        every = zip(["this model", *names], self.models(task), strict=True)
        return pd.DataFrame({name: gain_over([one], [one.scores(one.chosen)]).row("gain") for name, one in every}).T

    def cells(self, claim: str) -> list[Cell]:
        """Other analyses of R6 or R7, over all tasks and training seeds; see `SteeringResults.cells`."""
        found = list[Cell]()
        for task, own in self.results.items():
            found += own.cells(**({"model": "this one"} if self.seeds[task] else {}))[claim]
            for name, other in self.seeds[task].items():
                found += other.cells(model=name)[claim]
        return found


def study(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    spec: str,
    dtype: str = "float32",
    profile: str = "auto",
    **options: Any,
) -> Steered:
    """All tasks on a model under a profile of `PROFILES`; `options` are those of `task_study`.

    Raises:
        ValueError: no such profile, or fewer than ten items; InterventionError: a chosen layer has no router.
    """
    made = Steered()
    for task in TASKS:
        try:
            asked = task_study(task, model, tokenizer, spec, dtype, **options)
            found = asked.result(profile)
        except (CorpusError, ModelError) as error:
            made.told[task] = str(error)
        else:
            made.results[task] = SteeringResults(found)
            made.awaits = asked.awaits(found) if task == TASKS[0] else made.awaits
            made.seeds[task] = {name: SteeringResults(own) for name, own in asked.others(found).items()}
    return made
