"""Routing by language on parallel text: the observations of chapter R, and the numbers its claims rest on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import xarray as xr
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..corpus.languages import LANGUAGES
from ..corpus.store import Corpus, CorpusError
from ..measure.correlation import Association, Correlation
from ..measure.divergence import entropy, normalised_js
from ..measure.profile import ProfileShape, depth_windows, is_u_shaped
from ..measure.retrieval import retrieval_hits
from ..measure.statistics import ClusterBootstrap
from .passes import SegmentPass, encode, segment_pass

FEWEST = 10


@dataclass(frozen=True)
class RoutingConfig:
    """What is observed.

    Attributes:
        languages: codes; all of the corpus without any. The first of the corpus is the pivot (English).
        max_segments: cap per language; split: of the corpus; seed: of intervals.
    """

    languages: tuple[str, ...] | None = None
    max_segments: int = 100
    split: str = "test"
    seed: int = 0

    def rows(self, corpus: Corpus) -> list[int]:
        """Rows of the split, evenly spaced, those that most languages have first.

        Raises:
            CorpusError: fewer than ten segments.
        """
        rows = corpus.split(self.split)
        held = [sum(bool(column[i]) for column in corpus.columns.values()) for i in rows]
        best = [i for i, count in zip(rows, held, strict=True) if count == max(held)]
        pool = best if len(best) >= self.max_segments else rows
        if len(pool) < FEWEST:
            raise CorpusError(
                f"corpus {corpus.name!r} has {len(pool)} segments in its {self.split} split; a profile needs {FEWEST}"
            )
        chosen = np.linspace(0, len(pool) - 1, min(len(pool), self.max_segments)).round().astype(int)
        return [pool[i] for i in chosen]


def observe(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    corpus: Corpus,
    config: RoutingConfig = RoutingConfig(),
    progress: Callable[[str], None] = lambda line: None,
) -> xr.Dataset:
    """Routing of every language on the same segments.

    Returns a dataset over `(lang, segment, layer, expert, state)`: `importance` (arXiv 2510.04694, eq. 1),
    `divergence` from the pivot per parallel pair (eq. 2), `entropy` of the importance, `consistency` of top-k sets over
    all pairs of tokens, `nll`, `bytes`, `tokens`, `hits` and `hits_centred` (retrieval of the pivot's translation).
    A segment that a language lacks is NaN. `cluster` is the document of a segment, `unknown` the share of tokens that
    the tokenizer does not know.

    Raises:
        CorpusError: a language that the corpus does not hold, fewer than ten segments, or a tokenizer that knows
            nothing of a language.
    """
    codes = list(dict.fromkeys([corpus.languages[0], *(config.languages or corpus.languages)]))
    rows = config.rows(corpus)
    passes, present = {}, {}
    for code in codes:
        progress(f"{corpus.name} {code}")
        texts = corpus.texts(code, rows)
        present[code] = np.array([i for i, text in enumerate(texts) if text], dtype=int)
        own = [texts[i] for i in present[code]]
        if len(own) < FEWEST:
            continue
        _readable(tokenizer, own, code)
        passes[code] = segment_pass(model, tokenizer, own, consistency=True)
    if codes[0] not in passes:
        raise CorpusError(f"corpus {corpus.name!r} has too little of its pivot {codes[0]!r} to compare with")
    pivot = _Spread(passes[codes[0]], present[codes[0]], len(rows))
    parts = [_language(_Spread(own, present[code], len(rows)), pivot, code) for code, own in passes.items()]
    found = xr.concat(parts, "lang", join="exact")
    found = found.assign_coords(cluster=("segment", [corpus.rows[i].group for i in rows]))
    return found.assign_attrs(
        corpus=corpus.name, pivot=codes[0], left_out=" ".join(c for c in codes if c not in passes)
    )


def _readable(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], code: str) -> None:
    unknown = tokenizer.unk_token_id
    ids = [i for sequence in encode(tokenizer, texts) for i in sequence[1:]]
    if unknown is not None and ids and np.mean(np.array(ids) == unknown) > 0.5:
        raise CorpusError(f"the tokenizer knows less than half of the text in {code!r}; leave the language out")


@dataclass
class _Spread:
    """A pass over the present segments, spread over all of them with NaN between."""

    own: SegmentPass
    present: np.ndarray
    size: int

    def __call__(self, values: np.ndarray) -> np.ndarray:
        full = np.full((self.size, *values.shape[1:]), np.nan, dtype=np.float32)
        full[self.present] = values
        return full


def _language(own: _Spread, pivot: _Spread, code: str) -> xr.Dataset:
    mine = own.own
    data: dict[str, tuple] = {
        "nll": ("segment", own(mine.nll)),
        "bytes": ("segment", own(mine.bytes)),
        "tokens": ("segment", own(mine.tokens)),
        "importance": (("segment", "layer", "expert"), own(mine.importance)),
        "entropy": (("segment", "layer"), own(entropy(mine.importance))),
        "consistency": (("segment", "layer"), own(mine.consistency)),
    }
    theirs = pivot(pivot.own.importance)
    data["divergence"] = (("segment", "layer"), own(normalised_js(mine.importance, theirs[own.present])))
    data |= _retrieval(own, pivot)
    experts = mine.importance.shape[2]
    coords = {"segment": np.arange(own.size), "layer": list(mine.layers), "expert": np.arange(experts)}
    return xr.Dataset(data, coords=coords).expand_dims(lang=[code])


def _retrieval(own: _Spread, pivot: _Spread) -> dict[str, tuple]:
    shared = np.intersect1d(own.present, pivot.present)
    sides = [s.own.hidden[np.searchsorted(s.present, shared)] for s in (own, pivot)]
    found = {}
    for key, centre in (("hits", False), ("hits_centred", True)):
        full = np.full((own.size, sides[0].shape[1]), np.nan, dtype=np.float32)
        for state in range(full.shape[1]):
            full[shared, state] = retrieval_hits(sides[0][:, state], sides[1][:, state], centre)
        found[key] = (("segment", "state"), full)
    return found


@dataclass(frozen=True)
class LanguageProfiles:
    """Numbers of chapter R from an observation.

    Attributes:
        bootstrap: over segments, documents resampled.
    """

    bootstrap: ClusterBootstrap = field(default_factory=ClusterBootstrap)

    def by_layer(self, found: xr.Dataset, name: str) -> pd.DataFrame:
        """Mean of `divergence`, `entropy` or `consistency` per language and layer with its interval; columns `lang`,
        `layer`, `value`, `low`, `high`, `n`."""
        rows = []
        for code in found["lang"].values:
            values, clusters = _kept(found, name, code)
            for i, layer in enumerate(found["layer"].values):
                rows.append({"lang": code, "layer": layer, **self.bootstrap(values[:, i], clusters=clusters)._asdict()})
        return pd.DataFrame(rows)

    def shapes(self, found: xr.Dataset, name: str) -> pd.DataFrame:
        """Shape statistics of each language's profile over depth: index `(lang, contrast)`; see `ProfileShape`."""
        shape = ProfileShape(self.bootstrap)
        tables = {code: shape(*_kept(found, name, code)) for code in map(str, found["lang"].values)}
        return pd.concat(tables, names=["lang"])

    def u_shaped(self, found: xr.Dataset) -> pd.Series:
        """Whether each language but the pivot has a U-shaped divergence from it (claim R1)."""
        shapes = self.shapes(found.drop_sel(lang=found.attrs["pivot"]), "divergence")
        return shapes.groupby("lang", sort=False).apply(lambda s: is_u_shaped(s.droplevel("lang"))).rename("u_shaped")


def _kept(found: xr.Dataset, name: str, code: str) -> tuple[np.ndarray, np.ndarray]:
    values = found[name].sel(lang=code).values.astype(np.float64)
    kept = ~np.isnan(values).any(1)
    return values[kept], found["cluster"].values[kept]


def quality(found: xr.Dataset) -> pd.DataFrame:
    """One row per language but the pivot: what claim R2 correlates, and its confounders.

    Columns: `divergence` in the middle third of the layers; `relative_loss`, total loss over the pivot's on the common
    segments; `bits_per_byte`; `quality`, minus the logarithm of the relative loss (higher is better); `length_ratio`,
    tokens per token of the pivot; `log_train`, `script`, `family` where the language is in the report's table.
    """
    pivot = found.sel(lang=found.attrs["pivot"])
    middle = depth_windows(found.sizes["layer"])["middle"]
    rows = []
    for code in found["lang"].values:
        own = found.sel(lang=code)
        common = (own["nll"].notnull() & pivot["nll"].notnull()).values
        if code == found.attrs["pivot"] or not common.any():
            continue
        loss, other = own["nll"].values[common].sum(), pivot["nll"].values[common].sum()
        rows.append(
            {
                "lang": str(code),
                "divergence": float(own["divergence"].values[common][:, middle].mean()),
                "relative_loss": float(loss / other),
                "quality": float(-np.log(loss / other)),
                "bits_per_byte": float(loss / np.log(2) / own["bytes"].values[common].sum()),
                "length_ratio": float(own["tokens"].values[common].sum() / pivot["tokens"].values[common].sum()),
                **_known(str(code)),
            }
        )
    return pd.DataFrame(rows).set_index("lang")


def _known(code: str) -> dict:
    known = LANGUAGES.get(code)
    if known is None:
        return {"script": None, "family": None, "resource": None}
    return {"script": known.script, "family": known.family, "resource": known.resource}


def predict_quality(table: pd.DataFrame, covariates: Sequence[str] = (), seed: int = 0) -> dict[str, Association]:
    """Pearson and Spearman correlation of middle-layer divergence with quality, given covariates (claim R2)."""
    held = None if not covariates else table[list(covariates)].to_numpy(np.float64)
    sides = table["divergence"].to_numpy(), table["quality"].to_numpy()
    return {m: Correlation(m, seed=seed)(*sides, held) for m in ("pearson", "spearman")}
