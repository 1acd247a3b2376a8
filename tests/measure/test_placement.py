"""Simulated all-to-all volume: a loop as oracle, laws, and a planted placement."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechanism.measure.placement import (
    AllToAll,
    PlacementError,
    by_language,
    by_traffic,
    imbalance,
    in_order,
    messages,
    spread,
    traffic,
)


def routing(tokens=40, layers=3, experts=8, slots=2, seed=0):
    rng = np.random.default_rng(seed)
    return np.stack([[rng.permutation(experts)[:slots] for _ in range(layers)] for _ in range(tokens)])


@given(st.integers(0, 50), st.sampled_from([1, 2, 4, 8]))
def test_messages_are_those_of_a_loop(seed, devices):
    index, placement = routing(seed=seed), in_order(3, 8, devices)
    home = np.random.default_rng(seed).integers(devices, size=40)
    found = messages(index, home, placement)
    for t, layer in itertools.product(range(40), range(3)):
        others = {int(placement[layer, e]) for e in index[t, layer]} - {int(home[t])}
        assert found[t, layer] == len(others)
    assert (found.max() if devices > 1 else 0) <= 2
    assert devices > 1 or not found.any()


def test_volume_counts_dispatch_and_return():
    index = np.array([[[0, 7]], [[0, 1]]])
    sent = AllToAll(width=10, element_bytes=2)(index, np.array([0, 1]), in_order(1, 8, 2))
    assert sent.tolist() == [2 * 10 * 2, 2 * 10 * 2]


@pytest.mark.parametrize("devices", [1, 2, 4, 8, 16, 32])
def test_every_device_holds_equally_many_experts(devices):
    rng = np.random.default_rng(0)
    for placement in (in_order(4, 8, devices), by_traffic(rng.random((devices, 4, 8)))):
        assert len(set(np.bincount(placement.reshape(-1), minlength=devices))) == 1
        if devices <= 8:
            assert all(len(set(np.bincount(row, minlength=devices))) == 1 for row in placement)


@pytest.mark.parametrize("devices", [3, 5, 64])
def test_an_uneven_placement_is_refused(devices):
    with pytest.raises(PlacementError, match=f"cannot be placed on {devices} devices"):
        in_order(2, 8, devices)
    with pytest.raises(PlacementError, match="cannot be placed"):
        by_traffic(np.zeros((devices, 2, 8)))


def test_by_traffic_is_the_best_of_all_placements():
    wanted = np.random.default_rng(3).random((2, 1, 4))
    best = max(
        sum(wanted[d, 0, e] for e, d in enumerate(devices))
        for devices in itertools.product(range(2), repeat=4)
        if sum(devices) == 2
    )
    found = by_traffic(wanted)[0]
    assert sum(wanted[d, 0, e] for e, d in enumerate(found)) == pytest.approx(best)


def test_planted_languages_need_no_communication_once_their_experts_are_pinned():
    """Language l uses experts 2 l and 2 l + 1, numbered so that the order of experts separates them."""
    order = np.array([0, 4, 1, 5, 2, 6, 3, 7])
    lang = np.repeat(np.arange(4), 10)
    index = order[np.stack([2 * lang, 2 * lang + 1], -1)][:, None]
    shares = np.full(4, 0.25)
    home, weight = by_language(lang, shares, 4), np.ones(40)
    used = traffic(index, home, weight, 4, 8)
    assert used.sum() == 80
    pinned = by_traffic(used)
    assert messages(index, home, pinned).sum() == 0
    assert messages(index, spread(40, 4), in_order(1, 8, 4)).sum() == pytest.approx(60, abs=10)
    assert imbalance(used, pinned) == 1.0


def test_languages_get_devices_by_their_share():
    lang = np.repeat([0, 1, 2], 100)
    home = by_language(lang, np.array([0.5, 0.25, 0.25]), 8)
    assert [sorted(set(home[lang == code])) for code in range(3)] == [[0, 1, 2, 3], [4, 5], [6, 7]]
    assert set(np.bincount(home[:100])) == {25}
    with pytest.raises(PlacementError, match=r"sum to 1\.500"):
        by_language(lang, np.array([0.5, 0.5, 0.5]), 8)


def test_imbalance_is_the_busiest_device():
    used = np.zeros((2, 1, 4))
    used[:, 0, 0] = 3.0
    used[:, 0, 3] = 1.0
    assert imbalance(used, in_order(1, 4, 2)) == pytest.approx(6 / 4)
