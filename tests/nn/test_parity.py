from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mechanism.nn import parity
from mechanism.nn.errors import LayerError
from mechanism.nn.moe import SparseMoEConfig
from mechanism.nn.multihead import MultiHeadMoEConfig
from mechanism.nn.parity import ParityError

EMBEDDED = SparseMoEConfig(192, experts=16, top_k=2, width=128)


def without_router(config):
    parts = {name: part for name, part in config.parts().items() if name != "router"}
    return sum(p.flops for p in parts.values()), sum(p.total for p in parts.values())


@given(
    st.sampled_from(["relu", "gelu", "swiglu"]), st.integers(1, 4), st.integers(1, 4), st.booleans(), st.booleans(),
    st.integers(2, 40), st.integers(1, 3), st.integers(1, 400),
)  # fmt: skip
def test_every_solution_has_equal_flops_and_parameters(activation, heads, top_k, head, merge, experts, slots, width):
    assume(slots <= experts)
    base = SparseMoEConfig(12, experts, slots, width, activation=activation, normalise=False, shared_width=5)
    try:
        found = parity.multi_head(base, heads, top_k, head, merge)
    except LayerError:
        assume(False)
    assert without_router(found) == without_router(base)
    assert found.shared_width == 5


def test_the_embedded_layer_has_exact_partners():
    two, three = parity.multi_head(EMBEDDED, 2, 2), parity.multi_head(EMBEDDED, 3, 2)
    assert (two.width, two.experts, three.width, three.experts) == (64, 60, 64, 90)
    assert (parity.fine_grained(EMBEDDED, 4).width, parity.fine_grained(EMBEDDED, 4).experts) == (64, 32)
    assert parity.dense(EMBEDDED).flops() == EMBEDDED.parts()["experts"].flops


def test_the_nearest_are_offered_where_no_whole_numbers_fit():
    base = parity.SOURCE_BASELINE
    with pytest.raises(ParityError, match=r"41\.33 experts of width 768\.00.*nearest: 41 experts") as raised:
        parity.multi_head(base, 2, 2)
    first, second = raised.value.nearest
    assert (first.config.experts, second.config.experts) == (41, 42)
    assert first.flops == 1
    assert first.parameters == Fraction(without_router(first.config)[1], without_router(base)[1])
    with pytest.raises(ParityError, match=r"width 42\.67") as raised:
        parity.multi_head(EMBEDDED, 3, 3)
    assert {c.config.width for c in raised.value.nearest} == {42, 43}
    assert [c.distance for c in raised.value.nearest] == sorted(c.distance for c in raised.value.nearest)


def test_what_has_no_solution_says_so():
    narrow = SparseMoEConfig(192, experts=16, top_k=2, width=64)
    with pytest.raises(LayerError, match="nothing is left for experts at equal FLOPs"):
        parity.multi_head(narrow, 2, 2)
    with pytest.raises(LayerError, match="cannot be cut into 5 heads"):
        parity.multi_head(EMBEDDED, 5, 2)
    with pytest.raises(LayerError, match="have to be at least 1"):
        parity.multi_head(EMBEDDED, 2, 0)


def test_one_slot_is_not_normalised():
    assert EMBEDDED.normalise
    assert not parity.multi_head(EMBEDDED, 2, 1).normalise


def test_the_source_table():
    smoe, fine, two, three = parity.source_table()
    assert [r["multiplications"] for r in (smoe, fine, two, three)] == [4_718_592] * 4
    assert [r["width"] for r in (smoe, fine, two, three)] == [r["width_exact"] for r in (smoe, fine, two, three)]
    assert [r["parameters"] for r in (smoe, fine, two, three)] == [37_754_880, 37_761_024, 36_584_448, 38_952_960]
    assert [round(r["experts_exact"], 2) for r in (smoe, fine, two, three)] == [8, 16, 41.33, 93]
    assert [r["width_two_matrices"] for r in (two, three)] == [1664, 1792]
    assert [round(100 * r["parameters_ratio"] - 100, 1) for r in (two, three)] == [-3.1, 3.2]


@pytest.mark.parametrize(("d", "experts"), [(6, 8), (768, 8), (30, 5)])
def test_the_worked_examples_of_the_source(d, experts):
    """Eq. 10 and the sentences after it: ReLU, `width = 4 d`, one slot."""
    base = SparseMoEConfig(d, experts, top_k=1, width=4 * d, activation="relu", normalise=False)
    found = parity.multi_head(base, 3, 1)
    assert (found.width, found.experts) == (3 * d, 4 * experts - 1)
    assert parity.solve(base, 1, 2, head=True, merge=True)[0] == 3 * d
    assert parity.solve(base, 2, 2, head=True, merge=True)[0] == Fraction(3 * d, 2)


def test_products_as_the_source_counts_them():
    d = 768
    base = SparseMoEConfig(d, 8, top_k=1, width=4 * d, activation="relu", normalise=False)
    multi = MultiHeadMoEConfig(d, 31, top_k=1, width=3 * d, heads=3, activation="relu", normalise=False)
    assert without_router(base)[0] == without_router(multi)[0] == 16 * d * d
    predecessor = replace(multi, heads=4, width=d * 4 * 4 * 63 // 64)  # inner width 4 beta h d, beta = 63 / 64
    assert without_router(predecessor)[0] == 67 * d * d
