"""Sets of domain experts, driver experts, and random experts that match them."""

from dataclasses import dataclass, field

import numpy as np
import xarray as xr
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ...corpus.text import even
from ...measure.documents import Domains
from ...measure.matching import MatchedExperts
from ...measure.specialisation import activation_rate, cwas
from ...trace import ScaleWeight
from ...trace.interventions import Targets
from .domain_passes import documents, route
from .reweighting_items import Tasks
from .reweighting_plan import DOMAIN, DRIVER, NONE, RANDOM, ReweightingConfig, Setting
from .sweep import DRIVERS


@dataclass(frozen=True, eq=False)
class ExpertSets:
    """What sets of experts are cut from.

    Attributes:
        layers: decoder layers that route; score: CWAS by task, `(layer, expert)`; rate: activation rate by task;
            effect: causal effect `(layer, expert)`.
        n_draws, seed: of matched random sets.
    """

    layers: tuple[int, ...]
    score: dict[str, np.ndarray]
    rate: dict[str, np.ndarray]
    effect: np.ndarray
    n_draws: int
    seed: int
    _drawn: dict = field(default_factory=dict, repr=False)

    def chosen(self, setting: Setting, task: str) -> np.ndarray:
        """The set `(layer, expert)` of a setting on a task: the largest scores of all layers, at most half of the
        experts of a layer so that as many are left to match. Random sets are matched in frequency on the task's text
        for domain experts, and on all tasks' text for drivers."""
        kind = next((k for k, name in RANDOM.items() if name == setting.kind), setting.kind)
        values = self.effect if kind == DRIVER else self.score[setting.of or task]
        own = strongest(values, max(1, round(setting.share * values.size)))
        if setting.draw < 0:
            return own
        key = (kind, setting.share, task if kind == DOMAIN else "")
        if key not in self._drawn:
            base = self.rate[task] if kind == DOMAIN else np.mean(list(self.rate.values()), 0)
            self._drawn[key] = MatchedExperts(self.n_draws, seed=self.seed)(own, base)
        return np.asarray(self._drawn[key][setting.draw])

    def edit(self, setting: Setting, task: str) -> ScaleWeight | None:
        """The intervention of a setting on a task; None for one that changes nothing."""
        if setting.kind == NONE or setting.factor == 1:
            return None
        targets: Targets = tuple((self.layers[i], int(e)) for i, e in np.argwhere(self.chosen(setting, task)))
        return ScaleWeight(targets, factor=float(setting.factor))

    def dataset(self, chosen: dict[str, Setting]) -> xr.Dataset:
        """The chosen sets, and what they are the largest of."""
        cells = ("layer", "expert")
        own = np.stack([self.chosen(chosen[DOMAIN], task) for task in self.score])
        data = {
            "domain_set": (("task", *cells), own),
            "driver_set": (cells, self.chosen(chosen[DRIVER], "")),
            "score": (("task", *cells), np.stack(list(self.score.values()))),
            "effect": (cells, self.effect),
        }
        coords = {"task": list(self.score), "layer": list(self.layers), "expert": np.arange(self.effect.shape[1])}
        return xr.Dataset(data, coords)


def strongest(values: np.ndarray, count: int) -> np.ndarray:
    """The cells `(layer, expert)` with the largest values above 0, at most half of a layer."""
    ranks = np.argsort(np.argsort(-values, axis=1, kind="stable"), axis=1, kind="stable")
    allowed = (ranks < values.shape[1] // 2) & (values > 0)
    order = np.argsort(np.where(allowed, -values, np.inf), axis=None, kind="stable")[: min(count, int(allowed.sum()))]
    found = np.zeros(values.size, dtype=bool)
    found[order] = True
    return found.reshape(values.shape)


def expert_sets(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, made: Tasks, config: ReweightingConfig
) -> ExpertSets:
    """Scores of experts on dev text: CWAS by task, and the causal effect."""
    routed = route(model, tokenizer, made.texts, contributions=False)
    domains = Domains(documents(routed))
    names = [str(name) for name in domains.documents.names]
    scores, rates = cwas(domains), activation_rate(domains)
    chosen = even(made.texts, config.driver_texts)
    effect = DRIVERS[config.drivers](model, tokenizer, [piece.text for piece in chosen])
    return ExpertSets(
        tuple(routed["layer"].values.tolist()),
        {name: scores[..., names.index(name)] for name in made.dev},
        {name: rates[..., names.index(name)] for name in made.dev},
        effect,
        config.n_draws,
        config.seed,
    )
