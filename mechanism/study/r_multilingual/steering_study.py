"""The chapter's study of steering: two tasks, a small profile computed at once, and a full one that is recorded."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import xarray as xr
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ...corpus import word_problems
from ...corpus.library import load
from ...corpus.store import CorpusError, sha256
from ...models.load import ModelError, model_hash
from ..base.records import recorded, stored, texts_hash
from ..base.study import check_profile
from .steering import steer
from .steering_plan import SteeringConfig
from .steering_results import SteeringResults
from .steering_tasks import SteeringTask, TaskConfig, domain_task, word_problem_task

GENERIC, DOMAIN = "udhr", "tech"
TASKS = ("word problems", "domain")
FULL = {"dev": 200, "test": 300, "segments": 200}
# Languages of the second task in the small profile: those of its corpus with most items, and one of another script.
FEW = ("en", "de", "fr", "el")
VERSION = 2


@dataclass(frozen=True)
class SteeringStudy:
    """Two tasks on one model: word problems, on which the claims are judged, and a domain beside them.

    Attributes:
        read: what is read for each task; tried: what is tried on it.
        generic: corpus whose parallel text is the base; domain: corpus of the second task.
    """

    read: dict[str, TaskConfig]
    tried: dict[str, SteeringConfig]
    generic: str = GENERIC
    domain: str = DOMAIN

    @classmethod
    def small(
        cls,
        max_segments: int = 12,
        languages: tuple[str, ...] | None = None,
        generic: str = GENERIC,
        domain: str = DOMAIN,
        layers: tuple[int, ...] | None = None,
        seed: int = 0,
    ) -> "SteeringStudy":
        """So many items per language, split and task, to be computed at once; of the domain the main comparison."""
        few = languages or (FEW if domain == DOMAIN else None)
        read = TaskConfig(languages, dev=max_segments, test=max_segments, seed=seed)
        tried = SteeringConfig(layers=layers, seed=seed)
        brief = replace(tried, taus=(0.1, 0.2, 0.3), strengths=(0.5,), doses=(), widths=())
        texts = {"word problems": read, "domain": replace(read, languages=few)}
        trials = {"word problems": tried, "domain": brief}
        return cls({name: texts[name] for name in TASKS}, {name: trials[name] for name in TASKS}, generic, domain)

    def full(self) -> "SteeringStudy":
        """The same with many items in all languages, and every window of layers."""
        read = replace(next(iter(self.read.values())), dev=FULL["dev"], test=FULL["test"], segments=FULL["segments"])
        tried = replace(next(iter(self.tried.values())), taus=(0.1, 0.2, 0.3, 0.4, 0.5), widths=tuple(range(1, 9)))
        return replace(self, read=dict.fromkeys(self.read, read), tried=dict.fromkeys(self.tried, tried))

    def task(self, name: str, tokenizer: PreTrainedTokenizerBase) -> SteeringTask:
        """A task's texts and items.

        Raises:
            CorpusError: it has too little text in too many languages.
        """
        generic = load(self.generic, self.read[name].languages or ())
        if name == "word problems":
            return word_problem_task(tokenizer, generic, self.read[name])
        return domain_task(tokenizer, load(self.domain, self.read[name].languages or ()), generic, self.read[name])

    def run(
        self,
        name: str,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        progress: Callable[[str], None] = lambda line: None,
    ) -> xr.Dataset:
        """The result of a task; see `steer` for what it holds and raises."""
        return steer(model, tokenizer, self.task(name, tokenizer), self.tried[name], progress)

    def key(self, name: str, spec: str, dtype: str) -> dict:
        """What decides the result of a task on a model, besides the texts; see `records.stored`."""
        about = {"study": f"steering/{name}", "version": VERSION, "model": model_hash(spec), "dtype": dtype}
        return {**about, "read": asdict(self.read[name]), "tried": asdict(self.tried[name])}

    def data_hash(self) -> str:
        """Hash of the corpora and of the templates of word problems."""
        texts = texts_hash([load(self.generic), load(self.domain)])
        return texts + sha256(Path(word_problems.__file__).with_suffix(".yaml").read_bytes())[:8]

    def recorded(self, name: str, spec: str, dtype: str) -> xr.Dataset | None:
        """The recorded result of a task, None where there is none."""
        return recorded(self.key(name, spec, dtype), self.data_hash())

    def stored(self, name: str, spec: str, dtype: str, *loaded, command: str = "") -> xr.Dataset:
        """The recorded result of a task, computed and recorded first where there is none; `loaded` as for `run`."""
        return stored(self.key(name, spec, dtype), self.data_hash(), lambda: self.run(name, *loaded), command)


@dataclass
class Steered:
    """What a page shows, and what claims are judged on: the recorded full profile wherever there is one.

    Attributes:
        shown, judged: results by task; told: the sentence that says why there is none, by task.
    """

    shown: dict[str, SteeringResults] = field(default_factory=dict)
    judged: dict[str, SteeringResults] = field(default_factory=dict)
    told: dict[str, str] = field(default_factory=dict)


def run(
    spec: str,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    study: SteeringStudy,
    dtype: str = "float32",
    profile: str = "small",
    progress: Callable[[str], None] = lambda line: None,
) -> Steered:
    """Both tasks on a model.

    Args:
        spec, dtype: of the model, for the address of the record.
        study: the small profile; profile: `small` computes it; `full` its full one, once, and keeps it in `data/runs`;
            `auto` shows the recorded full one where there is one.

    Raises:
        ValueError: no such profile. InterventionError: a chosen layer has no router.
    """
    check_profile(profile)
    whole, made = study.full(), Steered()
    command = f"mechanism notebooks --only 11 --parameter model={spec} --parameter profile=full"
    for name in TASKS:
        try:
            if profile == "full":
                found: xr.Dataset = whole.stored(name, spec, dtype, model, tokenizer, progress, command=command)
                kept: xr.Dataset | None = found
            else:
                kept = whole.recorded(name, spec, dtype)
                shown = kept if profile == "auto" else None
                found = study.run(name, model, tokenizer, progress) if shown is None else shown
        except (CorpusError, ModelError) as error:
            made.told[name] = str(error)
        else:
            made.shown[name] = SteeringResults(found)
            made.judged[name] = made.shown[name] if kept is None else SteeringResults(kept)
    return made
