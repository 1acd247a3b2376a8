"""The interleaved timer: order of turns, turns that warm up, and ratios within a turn."""

import pytest
import torch

from mechanism.study.base.turns import by_case, compared, in_turns, layer_seconds, timed, turns


@pytest.mark.parametrize(("rotate", "order"), [(False, "abcabc"), (True, "abcbca")])
def test_cases_take_turns(rotate, order):
    taken: list[tuple[str, int]] = []

    def seconds(case: str, turn: int) -> float:
        taken.append((case, turn))
        return float(turn)

    table = in_turns({name: name.upper() for name in "abc"}, seconds, 2, warm=1, rotate=rotate)
    assert "".join(table["case"]) == order == "".join(name for name, _ in taken[3:]).lower()
    assert [turn for _, turn in taken] == [-1] * 3 + [0] * 3 + [1] * 3
    assert set(by_case(table)) == set("abc")
    assert by_case(table)["c"] == [0.0, 1.0]


def test_ratios_are_within_a_turn():
    rows = compared({"bare": [1.0, 10.0, 4.0], "watched": [2.0, 20.0, 40.0]}, "bare")
    assert rows[0] == {"case": "bare", "seconds": 4.0, "ratio": 1.0}
    assert rows[1] == {"case": "watched", "seconds": 20.0, "ratio": 2.0}


def test_a_call_is_made_once_and_timed():
    made: list[int] = []
    assert timed(lambda: made.append(1)) > 0
    assert made == [1]


def test_layers_see_the_same_tokens_in_a_turn_and_others_in_the_next():
    seen: dict[str, list[float]] = {"a": [], "b": []}

    class Layer(torch.nn.Linear):
        def __init__(self, name: str) -> None:
            super().__init__(3, 3)
            self.name = name

        def forward(self, x):
            seen[self.name].append(float(x.detach().sum()))
            return super().forward(x)

    layers = {name: Layer(name) for name in seen}
    found = turns(layers, (1, 4, 3), True, 2)
    assert seen["a"] == seen["b"]
    assert len(set(seen["a"])) == 4
    assert {name: len(own) for name, own in found.items()} == {"a": 2, "b": 2}
    assert layers["a"].weight.grad is not None
    layer_seconds(layers["a"], layers["a"], torch.ones(1, 4, 3), False)
    assert layers["a"].weight.grad is None
