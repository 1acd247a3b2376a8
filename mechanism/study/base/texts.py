"""Which parallel texts a study reads: those that most languages have, evenly spaced."""

from dataclasses import dataclass

from ...corpus.store import Corpus, CorpusError
from ...corpus.text import even

FEWEST = 10


@dataclass(frozen=True)
class RoutingConfig:
    """What is observed.

    Attributes:
        languages: codes; all of the corpus without any. The pivot (see `pivot_of`) is always among them.
        max_segments: cap per language, None for all; split: of the corpus.
    """

    languages: tuple[str, ...] | None = None
    max_segments: int | None = 100
    split: str = "test"

    def rows(self, corpus: Corpus) -> list[int]:
        """Rows of the split, evenly spaced, those that most languages have first.

        Raises:
            CorpusError: fewer than ten segments.
        """
        rows = corpus.split(self.split)
        limit = len(rows) if self.max_segments is None else self.max_segments
        held = [sum(bool(column[i]) for column in corpus.columns.values()) for i in rows]
        most = max(held, default=0)
        best = [i for i, count in zip(rows, held, strict=True) if count == most]
        pool = best if len(best) >= limit else rows
        if min(len(pool), limit) < FEWEST:
            raise CorpusError(
                f"corpus {corpus.name!r} has {len(pool)} segments in its {self.split} split, of which {limit} may be "
                f"read; a profile needs {FEWEST}"
            )
        return even(pool, limit)


SAMPLE = RoutingConfig()
"""Up to a hundred segments of the test split, in every language."""


def pivot_of(corpus: Corpus) -> str:
    """The language that others are compared with: English where the corpus has it, else its first language."""
    english = [code for code in corpus.languages if code.replace("_", "-").split("-")[0] in {"en", "eng"}]
    return (english or list(corpus.languages))[0]
