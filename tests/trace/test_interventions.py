from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mechanism.trace import (
    Ablate,
    Activate,
    Deactivate,
    Forbid,
    ForceSelection,
    InterventionError,
    ScaleWeight,
    SoftSteer,
    attach,
    find_sites,
    from_json,
    pairs,
    to_json,
)
from mechanism.trace.edit import SiteEdit
from mechanism.trace.families import tiny_model
from mechanism.trace.interventions import KINDS
from mechanism.trace.validate import validate

ALL = [
    SoftSteer(pairs([1, 2], 3), strength=0.5),
    Activate(pairs(0, [1, 2]), epsilon=0.1, phase="decode"),
    Deactivate(pairs(0, 4), positions=(3, None)),
    ForceSelection(pairs(3, 1), where="digits"),
    Forbid(pairs(3, 2)),
    ScaleWeight(pairs(2, 2), factor=2.0, renormalise=True),
    Ablate(pairs(1, [0, 5]), mode="mean"),
]


ONE = ((0, 1),)
KIND: dict[str, Any] = KINDS
"""The same classes without their types: what users hand over is of any."""


@pytest.fixture(scope="module")
def model():
    return tiny_model("qwen3_moe")


@pytest.fixture(scope="module")
def sites(model):
    return find_sites(model)


def test_json_round_trip_and_hash():
    again = from_json(to_json(ALL))
    assert again == ALL
    assert len({*again, *ALL}) == len(ALL)
    assert to_json(again) == to_json(ALL)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[{"kind": "Steer", "targets": [[0, 1]]}]', "no intervention is called 'Steer'"),
        ('[{"kind": "Forbid", "target": [[0, 1]]}]', "no field target"),
        ('[{"kind": "Forbid"}]', "names no targets"),
        ('[{"kind": "Forbid", "targets": [0, 1]}]', "pairs"),
        ('{"kind": "Forbid", "targets": [[0, 1]]}', "a list of objects"),
        ('[["Forbid", [[0, 1]]]]', "a list of objects"),
        ('[{"kind": "Forbid", "targets": [[0, 1]], "phase": "decoding"}]', "no phase 'decoding'"),
        ('[{"kind": "SoftSteer", "targets": [[0, 1]], "strength": null}]', "strength is None"),
        ('[{"kind": "SoftSteer", "targets": [[0, 1]], "strength": NaN}]', "strength is nan"),
        ("Forbid 0 1", "no JSON"),
    ],
)
def test_json_of_something_else(text, said):
    with pytest.raises(InterventionError, match=said):
        from_json(text)


def test_json_of_an_editor_that_marks_its_byte_order():
    assert from_json("\ufeff" + to_json(ALL)) == ALL


@pytest.mark.parametrize("kind", [int, np.int64, np.int32, torch.tensor, np.array])
def test_whole_numbers_of_every_library_are_the_same(kind):
    assert pairs(kind(2), kind(5)) == pairs(2, 5) == ((2, 5),)
    assert pairs([kind(2)], range(2)) == ((2, 0), (2, 1))
    assert Forbid(((kind(2), kind(5)),), positions=(kind(0), kind(3))) == Forbid(pairs(2, 5), positions=(0, 3))


@pytest.mark.parametrize("kind", [float, np.float32, np.float64, torch.tensor, int])
def test_numbers_of_every_library_are_the_same(kind):
    one = SoftSteer(pairs(0, 1), strength=kind(2.0))
    assert (one, hash(one), to_json([one])) == (own := SoftSteer(pairs(0, 1), strength=2.0), hash(own), to_json([own]))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: SoftSteer(()), "no targets"),
        (lambda: Forbid(((0, 1), (0, 1))), "twice"),
        (lambda: Forbid(((0, -1),)), "negative"),
        (lambda: Forbid(((0, 1),), positions=(4, 4)), "empty"),
        (lambda: KIND["Forbid"](((0, 1),), positions=(3,)), "positions are"),
        (lambda: KIND["Forbid"](((0, 1),), positions=(0.0, 4.0)), "no whole number"),
        (lambda: KIND["Forbid"](((0, 1.7),)), "no whole number"),
        (lambda: KIND["Forbid"]((("0", "1"),)), "no whole number"),
        (lambda: KIND["Forbid"]((0, 1)), "pairs"),
        *(
            (lambda p=p: KIND["Forbid"](((0, 1),), phase=p), "no phase")
            for p in ("generate", "Prefill", "decoded", "", 0)
        ),
        *((lambda s=s: KIND["SoftSteer"](ONE, strength=s), "finite") for s in ("2", None, True, np.inf, [1.0])),
        *((lambda f=f: KIND["ScaleWeight"](((0, 1),), factor=f), "finite") for f in (float("nan"), "0.5")),
        (lambda: KIND["ScaleWeight"](((0, 1),), renormalise="no"), "True or False"),
        (lambda: KIND["Activate"](((0, 1),), epsilon=float("nan")), "finite"),
        (lambda: KIND["Forbid"](((0, 1),), where=3), "names a mask"),
    ],
)
def test_senseless_interventions(make, said):
    with pytest.raises(InterventionError, match=said):
        make()


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ([Forbid(pairs(9, 0))], "layer 9 has no router"),
        ([Forbid(pairs(0, 8))], "out of range 0..7"),
        ([Activate(pairs(0, 1)), Forbid(pairs(0, 1))], "contradict"),
        ([ForceSelection(pairs(0, 1)), Ablate(pairs(0, 1), mode="reroute")], "contradict"),
        ([Ablate(pairs(0, 1)), Ablate(pairs(0, 1), mode="mean")], "contradict"),
        ([ForceSelection(pairs(0, [1, 2, 3]))], "3 experts are to be selected, a token has 2 slots"),
        ([ForceSelection(pairs(0, [1, 2])), Activate(pairs(0, 3))], "3 experts are to be selected"),
        ([Forbid(pairs(0, range(7)))], "1 remain for 2 slots"),
    ],
)
def test_refused_before_anything_runs(model, sites, chosen, said):
    with pytest.raises(InterventionError, match=said):
        validate(chosen, sites)
    with pytest.raises(InterventionError, match=said):
        attach(model, chosen)


def test_a_single_intervention_is_a_list_of_one(model):
    ids = torch.tensor([[5, 6, 7]])
    with attach(model, Forbid(pairs(0, 1))) as trace, torch.no_grad():
        model(input_ids=ids)
    assert trace.interventions == (Forbid(pairs(0, 1)),)


def test_disjoint_scopes_do_not_contradict(sites):
    validate([Activate(pairs(0, 1), phase="prefill"), Forbid(pairs(0, 1), phase="decode")], sites)
    validate([Activate(pairs(0, 1), positions=(0, 4)), Forbid(pairs(0, 1), positions=(4, None))], sites)


def test_scale_is_refused_where_scores_multiply_inputs():
    with pytest.raises(InterventionError, match="multiplies the experts' input"):
        attach(tiny_model("llama4_text"), [ScaleWeight(pairs(0, 1), factor=2.0)])


LOGITS = st.integers(2, 9).flatmap(
    lambda e: st.lists(st.lists(st.floats(-8, 8, width=32), min_size=e, max_size=e), min_size=1, max_size=5)
)


@given(LOGITS, st.floats(-2, 2))
def test_soft_steer_is_the_formula(rows, strength):
    z = torch.tensor(rows)
    out = SoftSteer(pairs(0, 1), strength=strength).logits(z, [1], 0)
    wanted = z.numpy().copy()
    wanted[:, 1] += strength * z.numpy().std(-1)
    assert torch.allclose(out, torch.from_numpy(wanted), atol=1e-4)


@given(LOGITS)
def test_soft_steer_of_zero_is_bit_identical(rows):
    z = torch.tensor(rows)
    assert torch.equal(SoftSteer(pairs(0, 0)).logits(z, [0], 0), z)


@given(LOGITS, st.integers(0, 5))
def test_activation_is_on_top_without_ties(rows, seed):
    z = torch.tensor(rows)
    out = Activate(pairs(0, [0, 1])).logits(z, [0, 1], seed)
    assert (out[:, :2] > z.amax(-1, keepdim=True)).all()
    assert (out[:, 0] != out[:, 1]).all()
    assert torch.equal(out, Activate(pairs(0, [0, 1])).logits(z, [0, 1], seed))
    low = Deactivate(pairs(0, [0, 1])).logits(z, [0, 1], seed)
    assert (low[:, :2] < z.amin(-1, keepdim=True)).all()


def test_ties_depend_on_the_seed():
    z = torch.zeros(1, 8)
    orders = {tuple(Activate(pairs(0, range(8))).logits(z, range(8), s).argsort()[0].tolist()) for s in range(20)}
    assert len(orders) > 10


@given(st.lists(st.floats(0.015625, 1, width=32), min_size=3, max_size=3), st.floats(0.125, 4, width=32))
def test_renormalised_scaling_keeps_the_sum(weights, factor):
    site = find_sites(tiny_model("qwen3_moe"))[0] if not CACHE else CACHE[0]
    CACHE[:] = [site]
    index, weight = torch.tensor([[0, 1, 2]]), torch.tensor([weights])
    edit = SiteEdit(site, [ScaleWeight(pairs(0, 1), factor=factor, renormalise=True)], [True])
    out = edit.weights(index, weight)
    assert torch.allclose(out.sum(), weight.sum(), rtol=1e-5)
    assert torch.allclose(out[0, 1] / out[0, 0], factor * weight[0, 1] / weight[0, 0], rtol=1e-4)


CACHE: list = []
