"""Domain experts and driver experts given more weight: what it does to accuracy and to text. Notebook 22, claim D5."""

from collections.abc import Sequence
from dataclasses import asdict, replace

import numpy as np
import xarray as xr
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ...corpus.store import Corpus
from ...models.load import model_hash
from ..base.records import recorded, stored, texts_hash
from .domain_text import Piece, common_language, load_domains, pieces
from .effects import FIRST
from .reweighting_items import tasks
from .reweighting_plan import DOMAIN, DRIVER, PROFILES, RANDOM, ReweightingConfig, Setting
from .reweighting_runs import Progress, Run
from .reweighting_sets import expert_sets
from .sweep import DRIVERS

CHARS = 400
COMMAND = "mechanism notebooks --only 22_reweighting -p profile=full"


def result(
    spec: str,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    profile: str = "auto",
    progress: Progress = lambda line: None,
    **changes: object,
) -> xr.Dataset:
    """The result of a profile: `full` is read from its record, or computed and recorded; `small` is computed; `auto` is
    `full` where there is a record of it for this model, else `small`.

    Args:
        changes: of the profile's settings; None is none.

    Raises:
        ValueError: no such profile; see `reweight` too.
    """
    if profile not in (*PROFILES, "auto"):
        raise ValueError(f"there is no profile {profile!r}; use auto, {', '.join(PROFILES)}")
    given = {name: value for name, value in changes.items() if value is not None}
    config = replace(PROFILES["small" if profile == "small" else "full"], **given)  # type: ignore[arg-type]
    corpora = load_domains(config.domains, config.languages or ())
    if profile != "small":
        asked = {"study": "reweighting", "model": model_hash(spec), "dtype": str(model.dtype), **_plain(config)}
        asked["first_ablated"] = FIRST
        data = texts_hash(corpora)
        found = recorded(asked, data)
        if found is not None or profile == "full":
            command = f"{COMMAND} -p model={spec}"
            return stored(asked, data, lambda: reweight(model, tokenizer, corpora, config, progress), command)
        config = replace(PROFILES["small"], **given)  # type: ignore[arg-type]
    return reweight(model, tokenizer, corpora, config, progress)


def _plain(config: ReweightingConfig) -> dict:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(config).items()}


def reweight(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    corpora: Sequence[Corpus],
    config: ReweightingConfig = PROFILES["small"],
    progress: Progress = lambda line: None,
) -> xr.Dataset:
    """Find experts on dev text, choose factor and number on dev items, and try them on test items and text.

    Returns a dataset: `dev_hit` and `dev_margin` over `(dev_setting, dev_item)`, `hit` and `margin` over
    `(setting, item)` (whether the true choice scores highest, and by how much), `nll` over `(text_setting, text)` with
    `bytes`, NaN where a setting does not apply; `chosen_factor`, `chosen_share` by `chosen`; the sets of experts
    `domain_set` `(task, layer, expert)` and `driver_set`, `effect` and `score` that they are the largest of. Settings
    are described by coordinates named as the fields of `Setting`.

    Raises:
        CorpusError: fewer than two domains or tasks; DenseModelError: the model routes nowhere; ValueError: no ranking
            of that name.
    """
    if config.drivers not in DRIVERS:
        raise ValueError(f"no ranking of drivers is called {config.drivers!r}; there are {', '.join(DRIVERS)}")
    code = common_language(corpora)
    made = tasks(tokenizer, corpora, code, config.items, config.count, config.seed)
    progress("finding experts")
    sets = expert_sets(model, tokenizer, made, config)
    run = Run(model, tokenizer, sets, progress)
    grid = [Setting(kind, f, share) for kind in (DOMAIN, DRIVER) for share in config.shares for f in config.factors]
    dev = run.choices(made.dev, [Setting(), *grid], "dev_")
    chosen = {kind: best_setting(dev, kind) for kind in (DOMAIN, DRIVER)}
    drawn = [replace(s, kind=RANDOM[k], draw=i) for k, s in chosen.items() for i in range(config.n_draws)]
    dosed = [replace(s, factor=f) for s in chosen.values() for f in config.doses if f != s.factor]
    test = run.choices(made.test, [Setting(), *chosen.values(), *drawn, *dosed], "")
    crossed = [replace(chosen[DOMAIN], of=task) for task in made.test]
    texts = side_texts(corpora, code, config)
    text = run.texts(texts, code, [Setting(), *chosen.values()], [*crossed, *drawn, *dosed])
    found = xr.merge([dev, test, text, sets.dataset(chosen)], join="exact")
    choice = {f"chosen_{name}": ("chosen", [getattr(s, name) for s in chosen.values()]) for name in ("factor", "share")}
    left_out = "; ".join(f"{name}: {why}" for name, why in made.left_out.items())
    about = {
        "lang": code,
        "passes": str(run.scorer.note),
        "n_draws": config.n_draws,
        "drivers": config.drivers,
        "left_out": left_out,
    }
    return found.assign(choice).assign_coords(chosen=list(chosen)).assign_attrs(about)


def side_texts(corpora: Sequence[Corpus], code: str, config: ReweightingConfig) -> list[Piece]:
    """Held-out text of every domain, and of the other languages of those that have some."""
    found = []
    for corpus in corpora:
        others = [c for c in corpus.languages if c != code and (config.languages is None or c in config.languages)]
        found += pieces(corpus, code, "test", config.texts, CHARS)
        found += [
            piece for other in others for piece in pieces(corpus, other, "test", max(1, config.texts // 2), CHARS)
        ]
    return found


def best_setting(dev: xr.Dataset, kind: str) -> Setting:
    """The setting of a kind with the highest accuracy on dev items, tasks counting equally; among equals that with the
    largest mean margin, then the first."""
    own = dev.isel(dev_setting=dev["dev_kind"].values == kind)
    by_task = own[["dev_hit", "dev_margin"]].groupby("dev_task_of").mean().mean("dev_task_of")
    keys = (-np.arange(own.sizes["dev_setting"]), by_task["dev_margin"].values, by_task["dev_hit"].values.round(9))
    best = own.isel(dev_setting=int(np.lexsort(keys)[-1]))
    return Setting(kind, float(best["dev_factor"]), float(best["dev_share"]))
