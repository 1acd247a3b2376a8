"""What chapter R looks at: texts, languages, and what is known of the model's training."""

import json
from dataclasses import asdict, dataclass

from ...corpus.languages import UNKNOWN
from ...corpus.library import load
from ...corpus.store import Corpus, CorpusError
from ...models.load import model_hash, training_run
from ..base import runs as training_runs
from ..base.texts import RoutingConfig, pivot_of

DATA = ("udhr", "tech", "religion")
VERSION = 1


def trained_on(spec: str) -> tuple[str, ...]:
    """Languages that a model of this report was trained on, by its record; none for a model from elsewhere."""
    folder = training_runs.records().get(training_run(spec) or "")
    if folder is None:
        return ()
    return tuple(json.loads((folder / "config.json").read_text("utf-8"))["mixture"]["languages"])


@dataclass(frozen=True)
class ChapterConfig:
    """What the chapter looks at.

    Attributes:
        data: corpora; the one with most languages is that in which languages are compared with one another.
        languages: codes, None for all; a corpus without any of them is left out.
        max_segments: cap per corpus, None for all.
        trained, unknown: languages that the model was trained on, and that it surely was not; () if that is not known.
        split, seed: of the segments, and of whatever is drawn; n_boot: resamples of intervals.
    """

    data: tuple[str, ...] = DATA
    languages: tuple[str, ...] | None = None
    max_segments: int | None = 40
    trained: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    split: str = "test"
    seed: int = 0
    n_boot: int = 1000

    @classmethod
    def of(cls, spec: str, **more) -> "ChapterConfig":
        """The configuration for a model, with what is known of its training."""
        trained = trained_on(spec)
        return cls(trained=trained, unknown=tuple(c for c in UNKNOWN if c not in trained) if trained else (), **more)

    def key(self, spec: str, dtype: str) -> dict:
        """What decides the result for a model, besides the texts; see `records.stored`."""
        about = {"study": "routing_by_language", "version": VERSION, "model": model_hash(spec), "dtype": dtype}
        return {**about, **asdict(self)}

    def corpora(self) -> list[Corpus]:
        """The corpora that have a language to compare.

        Raises:
            CorpusError: unknown corpora, or a language that none of them has.
        """
        found = [load(name, self.languages or ()) for name in self.data]
        held = {code for corpus in found for code in corpus.languages}
        if missing := [code for code in self.languages or () if code not in held]:
            raise CorpusError(f"no text in {' '.join(missing)}: {', '.join(c.name for c in found)} have none")
        return [corpus for corpus in found if self.languages is None or self._own(corpus)]

    def _own(self, corpus: Corpus) -> list[str]:
        codes = corpus.languages if self.languages is None else self.languages
        return [code for code in codes if code in corpus.languages and code != pivot_of(corpus)]

    def routing(self, corpus: Corpus) -> RoutingConfig:
        """What is observed of a corpus."""
        return RoutingConfig(tuple(self._own(corpus)), self.max_segments, self.split)
