"""The front page's story: bars add up, headlines are claims of their source, effects are in units of what counts."""

import re

import pytest
from matplotlib import pyplot as plt

from mechanism.report.claims import load_claims, load_sources
from mechanism.report.scoreboard import claim_rows
from mechanism.report.story import bar_html, effects, effects_figure, source_markdown

each_source = pytest.mark.parametrize("letter", load_sources())


def test_the_bar_has_every_claim_once():
    _, first, *others = bar_html().split(" claims on ")
    own, clones = (sum(map(int, re.findall(r"<b>(\d+)</b>", text))) for text in (first, "".join(others)))
    assert own == len(load_claims()) > clones > 0
    assert f"{len(load_claims())} claims" in bar_html()


@each_source
def test_a_source_is_told_by_claims_of_its_own(letter: str):
    assert load_sources()[letter].headline
    for name in load_sources()[letter].headline:
        assert name.startswith(letter)
        assert f'#claim-{name}"' in source_markdown(letter, "index")


@each_source
def test_effects_are_over_the_smallest_that_counts(letter: str):
    rows = {row["id"]: row for row in claim_rows()}
    table = effects(letter)
    assert len(table)
    for name, own in table.iterrows():
        row = rows[str(name)]
        counts = row["estimate"] <= row["smallest"] if row["smallest"] < 0 else row["estimate"] >= row["smallest"]
        if abs(own["estimate"] - 1) > 1e-9:
            assert (own["estimate"] > 1) == counts, name
        assert own["low"] <= own["estimate"] <= own["high"]
        if row["verdict"] == "replicated":
            assert own["high"] <= 1 if own["bound"] else own["estimate"] >= 1
        if row["verdict"] == "refuted" and not own["bound"]:
            assert own["high"] < 1


@each_source
def test_the_figure_says_how_many_reach_what_counts(letter: str):
    figure, alt, caption = effects_figure(letter)
    there = effects(letter).query("not bound")
    assert f"{(there['estimate'] >= 1).sum()} of {len(there)} estimates" in caption
    assert alt.count(";") == len(effects(letter)) - 1
    assert len(figure.axes[0].get_yticklabels()) == len(effects(letter))
    plt.close(figure)


def test_claims_that_an_effect_stays_small_are_told_apart():
    bound = {name for letter in load_sources() for name, own in effects(letter).iterrows() if own["bound"]}
    assert {"R5", "D3", "D7", "D8", "P12"} <= bound
    assert not bound & {"R1", "R2", "R6", "D2", "M2", "P8"}
