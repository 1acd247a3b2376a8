from dataclasses import replace

import numpy as np
import pytest

from mechanism.measure.causal import (
    Concentration,
    Effects,
    gini,
    inclusion,
    times_equal,
    top_count,
    top_experts,
    top_in_layers,
)


def effects(values, cells=("a", "a", "b", "b"), documents=("1", "2", "3", "4"), tokens=(2, 2, 5, 5)) -> Effects:
    cell = np.array(list(cells))
    return Effects(np.asarray(values, float), np.array(tokens), cell, cell, np.array(list(documents)))


def random_effects(seed: int = 0, sequences: int = 40) -> Effects:
    rng = np.random.default_rng(seed)
    values = rng.gamma(1.0, 1.0, (sequences, 3, 4)) * np.arange(1, 13).reshape(3, 4) ** 2
    return Effects(
        values, rng.integers(3, 9, sequences), np.repeat(["x en", "x de"], sequences // 2),
        np.full(sequences, "x"), np.tile(np.arange(sequences // 2), 2).astype(str),
    )  # fmt: skip


def test_cells_count_equally_whatever_their_length():
    values = np.zeros((4, 1, 1))
    values[:2], values[2:] = 2.0, 10.0
    assert effects(values).mean() == pytest.approx((1.0 + 2.0) / 2)
    names, cells = effects(values).by_cell()
    assert names == ["a", "b"]
    np.testing.assert_allclose(cells[:, 0, 0], [1.0, 2.0])


def three_cells(by="domain") -> Effects:
    """A domain in two languages, and one in a single language; effects per token are 1, 3 and 10."""
    cell, domain = np.array(["x en", "x en", "x de", "y en"]), np.array(["x", "x", "x", "y"])
    values = np.array([2.0, 4.0, 15.0, 20.0]).reshape(4, 1, 1)
    return Effects(values, np.array([2, 4, 5, 2]), cell, domain, np.array(["1", "2", "1", "1"]), by)


def test_domains_count_equally_however_many_languages_they_have():
    assert three_cells().mean() == pytest.approx((2.0 + 10.0) / 2)
    assert three_cells("cell").mean() == pytest.approx((1.0 + 3.0 + 10.0) / 3)
    assert np.tensordot(three_cells().share, three_cells().values, 1) == pytest.approx(6.0)
    assert np.tensordot(three_cells("cell").share, three_cells("cell").values, 1) == pytest.approx(14 / 3)


@pytest.mark.parametrize(
    ("times", "wanted"),
    [((1, 0, 0, 1), 5.5), ((0, 0, 2, 1), 6.5), ((1, 1, 1, 0), 2.0), ((0, 0, 0, 3), 10.0)],
)
def test_what_a_resample_leaves_empty_does_not_count(times, wanted):
    assert three_cells().mean(np.array(times, float)) == pytest.approx(wanted)


def test_a_language_more_of_one_domain_moves_no_share():
    """Experts of one domain keep their share of the effect when another domain is there in more languages."""
    rng = np.random.default_rng(0)
    shares = []
    for languages in (1, 15):
        domain = np.repeat(["x", "y"], [20 * languages, 20])
        cell = np.concatenate([np.repeat([f"x {i}" for i in range(languages)], 20), np.repeat("y 0", 20)])
        document = np.concatenate([np.tile(np.arange(20), languages), np.arange(20)]).astype(str)
        values = np.full((len(cell), 2, 10), 1.0)
        values[domain == "x", 0, 0] = 20.0
        values += rng.uniform(0, 1e-3, values.shape)
        own = Effects(values, np.ones(len(cell), int), cell, domain, document)
        shares.append(Concentration(n_boot=20)(own).estimate)
    assert shares[0] == pytest.approx(shares[1], abs=1e-3)
    assert shares[0] == pytest.approx((10 * 10.5 / 19.5 + 1) / 2, abs=1e-2), (
        "of the layer with the expert, and of the other"
    )


def test_mean_is_the_weighted_sum_of_its_shares():
    own = random_effects()
    np.testing.assert_allclose(np.tensordot(own.share, own.values, 1), own.mean())


def test_translations_are_drawn_together():
    own = random_effects()
    for times in own.resamples(20, 0):
        assert (times[:20] == times[20:]).all()
        assert times[:20].sum() == 20
    first, second = own.halves(0)
    assert (first + second == 1).all()
    assert (first[:20] == first[20:]).all()


@pytest.mark.parametrize(("values", "wanted"), [([1, 1, 1, 1], 0.0), ([0, 0, 0, 1], 0.75), ([1, 3], 0.25)])
def test_gini(values, wanted):
    assert gini(np.array(values, float)) == pytest.approx(wanted)


@pytest.mark.parametrize(("experts", "count"), [(128, 7), (100, 5), (96, 5), (8, 1), (6144, 308)])
def test_top_count_rounds_up(experts, count):
    assert top_count(experts) == count


def alone(values) -> Effects:
    """Effects on single tokens of documents of one domain."""
    size = len(values)
    return effects(values, ["x"] * size, list(map(str, range(size))), [1] * size)


def test_one_driver_has_all_of_its_layers_effect_and_equals_have_an_equal_share():
    values = np.full((40, 2, 10), 1e-6)
    values[:, :, 3] = 5.0
    values[:, 1] *= 1000  # depth makes no driver
    own = alone(values)
    found = Concentration(n_boot=50)(own)
    assert found.estimate == pytest.approx(10, abs=0.01)
    assert found.draws.min() <= found.estimate <= found.draws.max()
    assert (np.argwhere(top_in_layers(own.mean(), 0.05)) == [[0, 3], [1, 3]]).all()
    assert Concentration(n_boot=50)(alone(np.ones((40, 2, 10)))).estimate == pytest.approx(1)


def test_a_layer_that_does_more_is_no_concentration():
    values = np.ones((40, 4, 10))
    values[:, 3] = 50.0
    assert Concentration(n_boot=20)(alone(values)).estimate == pytest.approx(1)
    whole = alone(values.reshape(40, 1, 40))
    assert Concentration(n_boot=20)(whole).estimate > 3


def test_choice_does_not_flatter():
    own = alone(np.random.default_rng(0).gamma(0.2, 1.0, (30, 8, 16)))
    nothing = np.zeros((8, 16), bool)
    naive = times_equal(own.mean(), top_in_layers(own.mean(), 0.05), nothing)
    assert Concentration(n_boot=10)(own).estimate < 1.35 < 1.7 < naive


def test_inclusion_tells_experts_that_documents_agree_on_from_those_they_do_not():
    rng = np.random.default_rng(0)
    values = rng.gamma(1.0, 1.0, (40, 2, 10))
    values[:, 0, 4] += 5.0
    found = inclusion(alone(values), 0.05, np.zeros((2, 10), bool), n_boot=100)
    np.testing.assert_allclose(found.sum(1), 1)
    assert found[0, 4] == 1
    assert found[1].max() < 0.9


def test_a_layer_that_is_left_out_whole_has_no_top():
    out = np.array([[True, True], [False, False]])
    assert top_in_layers(np.array([[5.0, 9.0], [2.0, 1.0]]), 0.5, out).tolist() == [[False, False], [True, False]]
    assert times_equal(np.array([[5.0, 9.0], [3.0, 1.0]]), np.array([[0, 0], [1, 0]], bool), out) == 1.5


def test_left_out_neither_chosen_nor_counted():
    effect = np.array([[9.0, 1.0, 2.0]])
    out = np.array([[True, False, False]])
    assert (top_experts(effect, 1, out) == [[False, False, True]]).all()
    assert (top_experts(np.array([[np.nan, 1.0, 2.0]]), 2, out) == [[False, True, True]]).all()


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: gini(np.array([-1.0, 2.0])), "at least 0"),
        (lambda: gini(np.zeros(3)), "one of them above"),
        (lambda: top_experts(np.array([[np.nan, 1.0]]), 1), "1 effects are not numbers"),
        (lambda: top_experts(np.ones((1, 2)), 3), "3 experts asked for, 2"),
        (
            lambda: times_equal(np.zeros((1, 2)), np.ones((1, 2), bool), np.zeros((1, 2), bool)),
            "no expert has an effect",
        ),
        (lambda: effects(np.ones((4, 1, 1)), "aaaa", "1111").halves(0), "two documents"),
        (lambda: effects(np.ones((4, 1, 1)), tokens=(1, 0, 1, 1)), "each with a token"),
        (lambda: replace(effects(np.ones((4, 1, 1))), stratum=np.array(["b", "c", "b", "b"])), "one domain"),
    ],
)
def test_bad_input(call, said):
    with pytest.raises(ValueError, match=said):
        call()
