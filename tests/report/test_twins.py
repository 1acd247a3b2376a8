"""Every figure and table of the sources has its twin in a notebook, or a reason."""

from pathlib import Path

import pytest
import yaml

from mechanism.report.twins import labels, twins_markdown


def test_every_source_has_its_table_and_every_link_a_figure():
    told = twins_markdown()
    assert told.count("## ") == 4
    assert "{numref}`fig-divergence-by-quality`" in told
    assert "is not known to us" in told
    assert labels()["fig-clone-profiles"] == "12_clone_languages"


@pytest.mark.parametrize(
    ("entry", "wrong"),
    [
        ({"twin": ["fig-of-nothing"]}, "no notebook has a figure 'fig-of-nothing'"),
        ({"twin": [{"notebook": "11_steering", "heading": "Nowhere"}]}, "11_steering has no heading 'Nowhere'"),
        ({}, "give a twin, or a reason"),
        ({"twin": ["fig-entropy"], "reason": "none"}, "give a twin, or a reason"),
    ],
)
def test_what_is_not_there_is_refused(tmp_path: Path, entry: dict, wrong: str):
    path = tmp_path / "twins.yaml"
    path.write_text(yaml.safe_dump({letter: [{"name": "Figure 1", "shows": "a", **entry}] for letter in "RDMP"}))
    with pytest.raises(ValueError, match=wrong):
        twins_markdown(path)


def test_a_source_without_entries_is_refused(tmp_path: Path):
    path = tmp_path / "twins.yaml"
    path.write_text(yaml.safe_dump({"R": []}))
    with pytest.raises(ValueError, match="D, M, P is no source, or has no entry"):
        twins_markdown(path)
