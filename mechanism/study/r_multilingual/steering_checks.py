"""What steering on one task is held against: generated answers, controls that move as much routing weight, a damage
that it must repair, what it costs on other text, and the answers that the pivot's own route would give."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
import xarray as xr
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ...models.choices import EditedChoices, interventions
from ...models.passes import batches_by_length, pad, padding_token
from ...models.scoring import encode_choices, exact_match, judged, score_text
from ...trace import Replay, Route, SoftSteer, attach
from ...trace.interventions import Targets
from ..base.trials import Setting, attempt, described, spread
from .steering_plan import DOSED, RANDOM, UNEDITED, Steering, SteeringPlan
from .steering_tasks import Items, SteeringTask

STRENGTHS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Of every control, so that those which move the same routing weight can be compared."""
DAMAGE = 2.0
"""By how many standard deviations of a token's router logits a damaged router keeps task experts down. Pushes are in
standard deviations of what is left of them, so that none undoes it exactly."""
REPAIRS = (0.5, 1.0, 1.5, 2.0)
ROUTES = ("own", "pivot", "another item")
"""What routes an item: the model; the experts of the same item in the pivot; those of the next item in the pivot."""


def generated(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, items: Items, settings: Sequence[Setting]
) -> xr.Dataset:
    """Whether the generated answer is the right one, `exact` `(setting, lang, item)`; see `exact_match`."""
    found = np.zeros((len(settings), len(items), len(next(iter(items.values())))))
    for row, setting in enumerate(settings):
        for column, (code, own) in enumerate(items.items()):
            with attach(model, interventions(setting.on(code)), keep=False):
                found[row, column] = exact_match(model, tokenizer, own)
    data = {"exact": (("setting", "lang", "item"), found.astype(np.int8))}
    return xr.Dataset(data, {"lang": list(items), **described(settings)})


def by_weight(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, task: SteeringTask, plan: SteeringPlan,
    chosen: Steering, random: Sequence[Targets],
) -> xr.Dataset:  # fmt: skip
    """The chosen experts and the controls, steered softly with `STRENGTHS`: `hits` `(setting, lang, item)`, `margin`
    `(setting, item)`, mean over the languages but the pivot, and the routing weight `moved`; settings as in `steer`,
    those of a random set under its number."""
    chosen = replace(chosen, kind=DOSED, strength=1.0)
    ways = {"chosen": chosen, **plan.controls(chosen)}
    ways |= {f"{RANDOM} {draw}": replace(chosen, targets=own) for draw, own in enumerate(random)}
    settings = [
        replace(way, strength=way.strength * strength).as_setting("weight", name)
        for name, way in ways.items()
        for strength in STRENGTHS
    ]
    found = _answers(model, tokenizer, task.test, task, [UNEDITED, *settings])
    return found.assign(margin=found["margin"].drop_sel(lang=task.pivot).mean("lang"))


def repaired(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, task: SteeringTask, experts: Targets,
    random: Sequence[Targets],
) -> xr.Dataset:  # fmt: skip
    """Items of the pivot under a router that is damaged at the task experts by `DAMAGE`, and pushes of `REPAIRS` on
    these experts, or of the strongest on random ones: `hits` and `margin` `(setting, lang, item)`; settings have the
    role `none`, `damaged`, `task experts` or `random`."""
    damage = SoftSteer(experts, strength=-DAMAGE)
    settings = [UNEDITED, Setting({**UNEDITED.labels, "role": "damaged", "name": "damaged"}, damage)]
    pushes = [("task experts", f"{strength:g}", experts, strength) for strength in REPAIRS]
    pushes += [("random", str(draw), own, max(REPAIRS)) for draw, own in enumerate(random)]
    for role, name, targets, strength in pushes:
        push = Steering(targets=targets, strength=strength).as_setting(role, name)
        settings.append(replace(push, edit=(damage, *interventions(push.on("")))))
    return _answers(model, tokenizer, {task.pivot: task.test[task.pivot]}, task, settings)


def _answers(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, items: Items, task: SteeringTask,
    settings: Sequence[Setting],
) -> xr.Dataset:  # fmt: skip
    found = attempt(EditedChoices(model, tokenizer, task.chat), items, settings, tuple(items) if task.per_byte else ())
    each = {"hits": "hit", "margin": "margin"}
    data = {
        name: (("setting", "lang", "item"), spread(found[own].values, found["group"].values, found["id"].values))
        for name, own in each.items()
    }
    kept = found[["moved"]].drop_vars(["group", "id", "cluster"], errors="ignore")
    return xr.Dataset(data, {"lang": list(items)}).merge(kept)


def cost(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Mapping[str, Sequence[str]],
    settings: Sequence[Setting],
) -> xr.Dataset:  # fmt: skip
    """What settings do to running text: `nll` `(setting, lang, text)`, nats per token."""
    rows = []
    for setting in settings:
        scores = []
        for code, own in texts.items():
            with attach(model, interventions(setting.on(code)), keep=False):
                found = score_text(model, tokenizer, own)
            scores.append(found.nll / found.tokens)
        rows.append(scores)
    data = {"nll": (("setting", "lang", "text"), np.array(rows))}
    return xr.Dataset(data, {"lang": list(texts), **described(settings)})


def by_routes(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, items: Items, pivot: str, chat: bool = False
) -> xr.Dataset:
    """Items under every route of `ROUTES`: `hits` and `margin` `(route, lang, item)`. A route is laid along an item
    from its end, so that the tokens that answer meet those that answer; where one is the longer, its first tokens
    route by themselves. Weights are those that the router's rule makes for the experts. In the pivot, `pivot` stands
    for the first other language: what a foreign route costs where there is the skill.

    Raises:
        DenseModelError: the model has no routers.
    """
    encoded = {code: [encode_choices(tokenizer, item, not chat) for item in own] for code, own in items.items()}
    padding, codes = padding_token(tokenizer), list(items)
    foreign = next(code for code in codes if code != pivot)
    rows: dict[str, list[np.ndarray]] = {"hits": [], "margin": []}
    for route in ROUTES:
        scores = []
        for code in codes:
            guides = None
            if route != "own":
                guides = encoded[pivot if code != pivot or route == "another item" else foreign]
                guides = [*guides[1:], guides[0]] if route == "another item" else guides
            scores.append(judged(items[code], _logprobs(model, encoded[code], guides, padding), False))
        for name, values in zip(rows, zip(*scores, strict=True), strict=True):
            rows[name].append(np.stack(values))
    data = {name: (("route", "lang", "item"), np.stack(values)) for name, values in rows.items()}
    return xr.Dataset(data, {"route": list(ROUTES), "lang": codes})


Encoded = Sequence[tuple[list[int], list[list[int]]]]


def _logprobs(model: PreTrainedModel, own: Encoded, guides: Encoded | None, padding: int) -> np.ndarray:
    """`(item, choice)` log-probability of each choice, every sequence on the route of its guide, if there is one."""
    sequences, owner = _joined(own)
    paths = None if guides is None else _joined(guides)[0]
    found = np.zeros(len(sequences))
    for batch in batches_by_length(sequences):
        ids, mask = pad([sequences[i] for i in batch], padding)
        replay = None if paths is None else Replay(_laid(model, sequences, paths, batch, padding), same_text=False)
        with torch.no_grad(), attach(model, replay=replay, keep=False):
            scores = model(input_ids=ids.to(model.device), attention_mask=mask.to(model.device), use_cache=False).logits
        logs = scores.float().log_softmax(-1).cpu()
        for row, i in enumerate(batch):
            size, last = owner[i], len(sequences[i])
            wanted = ids[row, last - size : last]
            found[i] = float(logs[row, last - size - 1 : last - 1].gather(-1, wanted[:, None]).sum())
    return found.reshape(len(own), -1)


def _joined(encoded: Encoded) -> tuple[list[list[int]], list[int]]:
    """Every context with every choice, and the tokens of the choice."""
    pairs = [(context, choice) for context, choices in encoded for choice in choices]
    return [[*context, *choice] for context, choice in pairs], [len(choice) for _, choice in pairs]


def _laid(
    model: PreTrainedModel, sequences: Sequence[Sequence[int]], paths: Sequence[Sequence[int]], batch: Sequence[int],
    padding: int,
) -> Route:  # fmt: skip
    """The routes of a batch's guides, laid along its sequences from their ends."""
    ids, mask = pad([paths[i] for i in batch], padding)
    with torch.no_grad(), attach(model) as trace:
        model(input_ids=ids.to(model.device), attention_mask=mask.to(model.device), use_cache=False)
    return trace.route().moved([dict(_aligned(len(sequences[i]), len(paths[i]))) for i in batch])


def _aligned(length: int, guide: int) -> Iterator[tuple[int, int]]:
    """Positions of a sequence and of its guide, from the end to where either begins."""
    for back in range(1, min(length, guide) + 1):
        yield length - back, guide - back
