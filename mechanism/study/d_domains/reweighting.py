"""Domain experts and driver experts given more weight: what it does to accuracy and to text. Notebook 22, claim D5."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ...corpus.library import DOMAINS
from ...corpus.store import Corpus
from ...measure.statistics import ClusterBootstrap
from ...models.choices import Edit, EditedChoices, interventions
from ...models.load import model_hash
from ...models.passes import encode, room
from ...models.scoring import WINDOW, score_text
from ...models.work import Work, padded
from ...trace import InterventionError, attach, find_sites
from ..base.records import texts_hash
from ..base.study import Study, plain
from ..base.trials import Setting, attempt, choose, described, spread
from .domain_text import Piece, common_language, load_domains
from .effects import FIRST
from .reweighting_plan import DOMAIN, DRIVER, PROBLEMS, Way, expert_sets, side_texts, tasks
from .reweighting_results import Reweighted
from .sweep import DRIVERS

COMMAND = "mechanism notebooks --only 22_reweighting -p profile=full"


@dataclass(frozen=True)
class ReweightingConfig:
    """What is tried.

    Attributes:
        domains: corpora with a dev and a test split, each a task; languages: of the texts for side effects.
        items: choice items per task and split; count: pieces of text per domain to find experts with; texts: pieces per
            domain, and per language, for bits per byte.
        factors, shares: of the weight, and of the model's experts, to choose from on dev; doses: factors for
            dose-response.
        n_draws: matched random sets; drivers: ranking by causal effect, see `DRIVERS`; driver_texts: for it; seed.
    """

    domains: tuple[str, ...] = ("religion", "tech", *DOMAINS)
    languages: tuple[str, ...] | None = None
    items: int = 4
    count: int = 6
    texts: int = 2
    factors: tuple[float, ...] = (1.5, 2.0)
    shares: tuple[float, ...] = (0.05,)
    doses: tuple[float, ...] = (0.0, 4.0)
    n_draws: int = 2
    drivers: str = "ablation"
    driver_texts: int = 3
    seed: int = 0


SAMPLE = ReweightingConfig()
FULL = ReweightingConfig(
    items=50, count=40, texts=20, factors=(0.5, 1.25, 1.5, 2.0, 3.0), shares=(0.025, 0.05, 0.1),
    doses=(0.0, 0.25, 0.5, 0.75, 1.25, 1.5, 2.0, 3.0, 4.0), n_draws=50, driver_texts=16,
)  # fmt: skip


def study(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    spec: str,
    dtype: str = "float32",
    profile: str = "auto",
    **changes: object,
) -> Reweighted:
    """Tables of the result under a profile of `PROFILES`, and of models of other training seeds where it is a full one.

    Args:
        spec, dtype: of the model, for the address of the record.
        changes: of the fields of `ReweightingConfig`, in the full result and in the sample; None is none.

    Raises:
        ValueError: no such profile; see `reweight` too.
    """
    asked = _asked(model, tokenizer, spec, dtype, **changes)
    found, bootstrap = asked.result(profile), ClusterBootstrap(seed=_configs(changes)[0].seed)
    seeds = {name: Reweighted(own, bootstrap) for name, own in asked.others(found).items()}
    return Reweighted(found, bootstrap, asked.awaits(found), seeds)


def _configs(changes: Mapping[str, object]) -> tuple[ReweightingConfig, ReweightingConfig]:
    """Of the full result and of the sample."""
    given = {name: value for name, value in changes.items() if value is not None}
    full, sample = (replace(config, **given) for config in (FULL, SAMPLE))  # type: ignore[arg-type]
    return full, sample


def _asked(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, spec: str, dtype: str, **changes: object
) -> Study:
    full, sample = _configs(changes)
    corpora = load_domains(full.domains, full.languages or ())
    key = {"study": "reweighting", "model": model_hash(spec), "dtype": f"torch.{dtype}", "first_ablated": FIRST}
    return Study(
        key | plain(full), texts_hash(corpora), lambda: reweight(model, tokenizer, corpora, full),
        lambda: reweight(model, tokenizer, corpora, sample), f"{COMMAND} -p model={spec}", spec,
    )  # fmt: skip


def work(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, spec: str, dtype: str, profile: str, **changes: object
) -> list[Work]:
    """Work of `study` at most, arguments as there; none where it is recorded. Every text is taken to select every
    expert, and every edit to act from the first layer on.

    Raises:
        CorpusError: see `reweight`.
    """
    if profile != "small" and _asked(model, tokenizer, spec, dtype, **changes).recorded() is not None:
        return []
    config = _configs(changes)[0 if profile == "full" else 1]
    corpora = load_domains(config.domains, config.languages or ())
    code = common_language(corpora)
    made = tasks(tokenizer, corpora, code, config.items, config.count, config.seed)
    sites, most = find_sites(model), room(model)
    scorer, layers = EditedChoices(model, tokenizer), len(sites)
    dev, test = (scorer.tokens([item for own in items.values() for item in own]) for items in (made.dev, made.test))
    others = 2 * (config.n_draws + len(config.doses))
    chooses = dev * (1 + 2 * len(config.shares) * len(config.factors)) + test * (3 + others)
    lengths = [len(ids) for ids in encode(tokenizer, [piece.text for piece in made.texts], most)]
    swept = config.driver_texts * max(lengths)
    experts = max(site.num_experts for site in sites)
    routes = padded(lengths)
    for piece in side_texts(corpora, code, config.texts, config.languages):
        size = 2 * (len(encode(tokenizer, [piece.text], most)[0]) + WINDOW // 2)  # windows overlap by half
        routes += size * (3 + (piece.lang == code) * (others + len(made.test)))
    return [
        Work("routes", float(routes * layers), at_most=True),
        Work("chooses", float(chooses * layers), at_most=True),
        Work("sweeps", float(swept * experts * layers * (layers + 1) / 2), at_most=True),
    ]


def reweight(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    corpora: Sequence[Corpus],
    config: ReweightingConfig = SAMPLE,
) -> xr.Dataset:
    """Find experts on dev text, choose factor and number on dev items, and try them on test items and text.

    Returns a dataset: `dev_hit` and `dev_margin` over `(dev_setting, dev_item)`, `hit` and `margin` over
    `(setting, item)` (whether the true choice scores highest, and the attribute `margin`; records without this
    attribute hold the lead over the best other choice, in nats), `nll` over `(text_setting, text)` with `bytes`, NaN
    where a setting does not apply; `chosen_factor`, `chosen_share` by `chosen`; the sets of experts `domain_set`
    `(task, layer, expert)` and `driver_set`, `effect` and `score` that they are the largest of. Settings are described
    by coordinates named as the fields of `Way`.

    Raises:
        CorpusError: fewer than two domains or tasks; DenseModelError: the model routes nowhere; ValueError: no ranking
            of that name; InterventionError: the model's routers refuse an edit.
    """
    if config.drivers not in DRIVERS:
        raise ValueError(f"no ranking of drivers is called {config.drivers!r}; there are {', '.join(DRIVERS)}")
    code = common_language(corpora)
    made = tasks(tokenizer, corpora, code, config.items, config.count, config.seed)
    sets = expert_sets(model, tokenizer, made, config.drivers, config.driver_texts)
    scorer = EditedChoices(model, tokenizer)

    def score(prefix: str, settings: Sequence[Setting]) -> xr.Dataset:
        items = made.dev if prefix else made.test
        own = [task for task in items if task != PROBLEMS]
        found = attempt(scorer, items, settings, own)
        if scorer.refused:
            raise InterventionError(f"its experts cannot be re-weighted: {next(iter(scorer.refused.values()))}")
        found = found.drop_vars(["moved", "id"]).rename(group="task_of")
        found["hit"] = found["hit"].astype(bool)
        return found.rename({str(name): f"{prefix}{name}" for name in (*found.variables, *found.dims)})

    unedited, chosen = sets.setting(Way()), {}
    grid = [Way(kind, f, share) for kind in (DOMAIN, DRIVER) for share in config.shares for f in config.factors]
    dev = score("dev_", [unedited, *map(sets.setting, grid)])
    hits, margins = (spread(dev[f"dev_{n}"].values, dev["dev_task_of"].values)[1:] for n in ("hit", "margin"))
    for kind in (DOMAIN, DRIVER):
        rows = [row for row, way in enumerate(grid) if way.kind == kind]
        best = choose(hits[rows], margins[rows])
        assert best is not None, "none was refused"
        chosen[kind] = grid[rows[best]]
    picked = [unedited, *map(sets.setting, chosen.values())]
    drawn = [one for way in chosen.values() for one in sets.random(way, config.n_draws, config.seed)]
    dosed = [sets.setting(replace(w, factor=f)) for w in chosen.values() for f in config.doses if f != w.factor]
    test = score("", [*picked, *drawn, *dosed])
    crossed = [sets.setting(replace(chosen[DOMAIN], of=task)) for task in made.test]
    texts = [piece for piece in side_texts(corpora, code, config.texts, config.languages) if piece.domain in made.test]
    nll = _text_scores(model, tokenizer, texts, code, picked, [*crossed, *drawn, *dosed])
    return xr.merge([dev, test, nll, sets.dataset(chosen)], join="exact").assign_attrs(
        lang=code, passes=str(scorer.note), n_draws=config.n_draws, drivers=config.drivers, margin="log-odds",
        left_out="; ".join(f"{name}: {why}" for name, why in made.left_out.items()),
    )  # fmt: skip


def _text_scores(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[Piece], code: str,
    everywhere: Sequence[Setting], pivot: Sequence[Setting],
) -> xr.Dataset:  # fmt: skip
    """`nll` of texts under the settings `everywhere`, and under those of `pivot` in the language `code` alone; NaN
    elsewhere."""
    settings = [*everywhere, *pivot]
    jobs: dict[Edit, dict[int, list[int]]] = {}
    for i, piece in enumerate(texts):
        for row, setting in enumerate(settings if piece.lang == code else everywhere):
            jobs.setdefault(setting.on(piece.domain), {}).setdefault(i, []).append(row)
    nll = np.full((len(settings), len(texts)), np.nan)
    for edit, wanted in jobs.items():
        with attach(model, interventions(edit), keep=False):
            scores = score_text(model, tokenizer, [texts[i].text for i in wanted]).nll
        for (i, rows), own in zip(wanted.items(), scores, strict=True):
            nll[rows, i] = own
    coords = {f"text_{name}": ("text", [getattr(p, name) for p in texts]) for name in ("domain", "lang", "document")}
    size = np.array([len(piece.text.encode()) for piece in texts], dtype=np.float64)
    data = {"nll": (("text_setting", "text"), nll), "bytes": ("text", size)}
    return xr.Dataset(data, coords | described(settings, "text_"))
