"""The grid of models of clone languages that learn a skill, word problems, from where the grid of clones left them: in
English alone, or in every language. What steering could bring to the others is measured with each run."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import xarray as xr
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from ...corpus import word_problems
from ...corpus.clones import CloneTokenizer, SkillStream, as_clone
from ...corpus.tasks import word_problem_items
from ...corpus.tokenizer import load_tokenizer
from ...models.errors import ModelError
from ...models.passes import encode, padding_token, room, routed_tokens
from ...models.scoring import score_choices, token_counter
from ...nn.checkpoint import Checkpoint, TrainingError, checkpoint_files, checkpoint_path, read_checkpoint
from ...nn.train_config import TrainConfig
from ...nn.training import Trainer
from ..base.probe_log import write_stats
from ..base.trials import matched
from ..clones.grid import ENGLISH, CloneRun
from ..clones.routing import held_segments
from ..grid.english import english_tokens
from ..grid.run import Planned, RecordedRun, RunGrid, Workshop
from ..grids import load_grid as load_other
from ..r_multilingual.steering import expert_frequencies, steer
from ..r_multilingual.steering_checks import by_routes, by_weight, cost, generated, repaired
from ..r_multilingual.steering_plan import UNEDITED, SteeringConfig, SteeringPlan
from ..r_multilingual.steering_tasks import Items, SteeringTask

FILES = ("steering", "skill", "generated", "weight", "repair", "cost", "routes")
"""Tables in the record of a run; see `SkillWorkshop.measure`."""
FEW_SETS = 5
"""Random sets of experts that are tried many times."""
TAUS = (0.1, 0.2, 0.3, 0.4, 0.5)


@dataclass(frozen=True)
class Sizes:
    """What is read: items on which settings are chosen (`dev`) and tried (`test`), and of the latter how many (`few`)
    are tried under many edits and routes; `segments` of text by language; `draws` of random experts."""

    dev: int = 150
    test: int = 300
    few: int = 100
    segments: int = 60
    draws: int = 50


@dataclass(frozen=True)
class SkillRun(RecordedRun):
    """One run.

    Attributes:
        grid, cell: where it belongs; train: what it is; base: hash of the run with whose weights it begins.
        problems, everywhere: see `SkillStream`; sizes: see `Sizes`; data: content hash of what it reads.
    """

    cell: str
    base: str
    problems: float
    everywhere: bool
    sizes: Sizes
    data: str

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.cell}, seed {self.train.seed}"


@dataclass(frozen=True)
class SkillGrid(RunGrid[SkillRun]):
    """The experiment; fields as in its file. `base` names the grid and the cell that runs begin with; `cells` say where
    the skill is taught (`everywhere`), how many `seeds` they have, and what of `train` and which share of `problems` is
    their own; `rules`, fixed before the first run, as text."""

    name: str
    base: Mapping[str, str]
    train: Mapping[str, Any]
    problems: float
    seeds: int
    cells: Mapping[str, Mapping[str, Any]]
    rules: Mapping[str, str]
    sizes: Sizes = field(default_factory=Sizes)

    @cached_property
    def bases(self) -> list[CloneRun]:
        """The runs that are gone on with, by seed."""
        return list(load_other(self.base["grid"]).runs(self.base["cell"]))

    def run(self, cell: str, seed: int) -> SkillRun:
        """One run of a cell."""
        about, base = self.cells[cell], self.bases[seed]
        given = {**self.train, **about.get("train", {}), "probes": ()}
        train = TrainConfig(model=base.train.model, seed=seed, **given)
        problems, everywhere = about.get("problems", self.problems), bool(about.get("everywhere", False))
        return SkillRun(self.name, train, cell, base.hash, problems, everywhere, self.sizes, base.data)

    def runs(self, cell: str) -> list[SkillRun]:
        """A cell's runs, one for each seed."""
        return [self.run(cell, seed) for seed in range(self.cells[cell].get("seeds", self.seeds))]

    def planned(self) -> Iterator[Planned]:
        """Cell after cell, in the file's order."""
        for cell in self.cells:
            for run in self.runs(cell):
                yield Planned(cell, run.train.steps, run)

    def figure_of(self, result: dict[str, Any]) -> float:
        """Share of English problems that are answered rightly."""
        return float(result["exact"]["en"])

    figure = ("exact, English", 3)

    def workshop(self) -> "SkillWorkshop":
        """See `RunGrid`.

        Raises:
            TrainingError: the weights that a run begins with are not there.
        """
        for run in self.missing_runs():
            base = self.bases[run.train.seed]
            if not base.exported.exists():
                raise TrainingError(
                    f"{run.name} begins with the weights of {base.name} ({base.hash}), which are not in "
                    f"{base.exported.parent}: delete that run's record and make it again, `mechanism train --grid "
                    f"{base.grid}`"
                )
        return SkillWorkshop({run.hash: run for run in self.bases})


class SkillWorkshop(Workshop[SkillRun]):
    """English, read once for all runs; `bases`, by hash."""

    def __init__(self, bases: Mapping[str, CloneRun]) -> None:
        self.bases, self.tokenizer = bases, load_tokenizer(ENGLISH)
        self.columns, _ = english_tokens(self.tokenizer)

    def stream(self, run: SkillRun) -> SkillStream:
        """What a run reads: what its base read, and word problems."""
        given = self.bases[run.base].clones, self.tokenizer, self.columns, run.train.model.vocab
        return SkillStream(*given, problems=run.problems, everywhere=run.everywhere)

    def trainer(self, run: SkillRun) -> Trainer:
        """The run's trainer at its newest checkpoint, or at its base's weights."""
        if not checkpoint_files(run.workspace):
            run.workspace.mkdir(parents=True, exist_ok=True)
            Checkpoint(self._begun(run).state, 0).write(checkpoint_path(run.workspace, 0))
        stream, config = self.stream(run), run.train
        return Trainer(config, lambda step: stream.batch(config.seed, step, config.batch, config.length), run.workspace)

    def _begun(self, run: SkillRun) -> Checkpoint:
        return read_checkpoint(self.bases[run.base].exported, "make its run again")

    def measure(self, run: SkillRun, trainer: Trainer) -> dict[str, Any]:
        """Write what steering does, and what it is held against; returns the share of exact answers by language, and
        how passes were run, or why nothing could be steered.

        `skill`: `exact` and `hits` `(model, lang, item)` on dev items, before and after the branch, and `rate` `(lang,
        layer, expert)`, how often tokens of solved problems select an expert. `steering`: see `steer`; `generated`,
        `weight`, `repair`, `cost` and `routes`: see `steering_checks`.
        """
        model, reader = trainer.model, CloneTokenizer(self.tokenizer, self.stream(run).ids)
        task = self.task(run)
        few = replace(task, test={code: own[: run.sizes.few] for code, own in task.test.items()})
        made = {"skill": self._skill(run, model, reader, task), "routes": by_routes(model, reader, few.test, "en")}
        try:
            made |= self._steered(run, model, reader, task, few)
            note = made["steering"].attrs["note"]
        except ModelError as error:
            note = str(error)
        for name, table in made.items():
            write_stats(table, run.record / f"{name}.nc")
        exact = made["skill"]["exact"].sel(model="branch").mean("item").to_series()
        return {"exact": exact.round(4).to_dict(), "note": note}

    def _steered(
        self, run: SkillRun, model: PreTrainedModel, reader: PreTrainedTokenizerFast, task: SteeringTask,
        few: SteeringTask,
    ) -> dict[str, xr.Dataset]:  # fmt: skip
        """All that needs a chosen setting.

        Raises:
            ModelError: there is none; see `steer`.
        """
        config = SteeringConfig(taus=TAUS, draws=run.sizes.draws, widths=())
        found = steer(model, reader, task, config)
        plan = SteeringPlan(expert_frequencies(model, reader, task.texts, task.generic), config)
        chosen = plan.grid()[found.attrs["chosen"]]
        random = matched(chosen.targets, plan.layers, plan.found["base_rate"].values, run.sizes.draws)
        drawn = [replace(chosen, targets=own).as_setting("random", str(n)) for n, own in enumerate(random[:FEW_SETS])]
        settings = [UNEDITED, chosen.as_setting("chosen", "chosen"), *drawn]
        return {
            "steering": found,
            "generated": generated(model, reader, few.test, settings),
            "weight": by_weight(model, reader, few, plan, chosen, random[:FEW_SETS]),
            "repair": repaired(model, reader, few, chosen.targets, random),
            "cost": cost(model, reader, self.texts(run), settings),
        }

    def languages(self, run: SkillRun) -> dict[int, str]:
        """English, and the clones that the base reads, by number."""
        clones = self.bases[run.base].clones
        return {k: name for k, name in enumerate(clones.names) if clones.shares[k]}

    def task(self, run: SkillRun) -> SteeringTask:
        """Word problems in every language: the English ones, token by token."""

        def items(split: str, count: int) -> Items:
            found = word_problem_items("en", token_counter(self.tokenizer), split, count)
            return {
                name: [
                    replace(one, context=as_clone(one.context, k), choices=tuple(as_clone(c, k) for c in one.choices))
                    for one in found
                ]
                for k, name in self.languages(run).items()
            }

        solved = word_problems.solved("train", run.sizes.segments, "en", 0)
        dev, test = items("dev", run.sizes.dev), items("test", run.sizes.test)
        texts = tuple(question + answer for question, answer in solved)
        return SteeringTask("word problems", "en", texts, self.texts(run, "dev"), dev, test)

    def texts(self, run: SkillRun, split: str = "test") -> dict[str, list[str]]:
        """Running text of a split, the same in every language."""
        held = replace(self.bases[run.base].held, segments=max(1, run.sizes.segments // 5))
        english = held_segments(held, self.tokenizer, split).texts
        return {name: [as_clone(text, k) for text in english] for k, name in self.languages(run).items()}

    def _skill(
        self, run: SkillRun, model: PreTrainedModel, reader: PreTrainedTokenizerFast, task: SteeringTask
    ) -> xr.Dataset:
        before = run.train.model.build().eval()
        weights = {name.removeprefix("model."): value for name, value in self._begun(run).state.items()}
        lacking, unknown = before.load_state_dict(weights, strict=False)
        assert not unknown
        assert set(lacking) <= {"lm_head.weight"}, "tied to the embedding"
        rows = {"base": before, "branch": model}
        exact = [generated(one, reader, task.dev, [UNEDITED])["exact"].values[0] for one in rows.values()]
        hits = [[score_choices(one, reader, own, False) for own in task.dev.values()] for one in rows.values()]
        axes = ("model", "lang", "item")
        data: dict[str, Any] = {"exact": (axes, np.stack(exact)), "hits": (axes, np.array(hits))}
        rates = []
        for k in self.languages(run):
            ids = encode(reader, [as_clone(text, k) for text in task.texts], room(model))
            rates.append(routed_tokens(model, ids, padding_token(reader)).rates().mean(0))
        data["rate"] = (("lang", "layer", "expert"), np.stack(rates))
        return xr.Dataset(data, {"model": list(rows), "lang": list(task.dev)})


def load_grid(name: str, fields: dict[str, Any]) -> SkillGrid:
    """The grid of a file's fields.

    Raises:
        TypeError: a field that does not exist, or a missing one; FileNotFoundError: there is no such base.
    """
    grid = SkillGrid(name=name, sizes=Sizes(**fields.pop("sizes", {})), **fields)
    for plan in grid.planned():  # so that a cell that cannot be is refused before the first run
        assert plan.run
    return grid
