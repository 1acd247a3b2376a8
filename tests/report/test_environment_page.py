"""Tables of the page on provenance, and the citation."""

from pathlib import Path

import nbformat
import yaml
from nbformat.v4 import new_notebook

from mechanism.report.build import note_time, read_times
from mechanism.report.environment import CITATION, citation_markdown, environment_markdown, notebooks_markdown


def test_environment_names_versions_hashes_and_machine():
    text = environment_markdown()
    for name in ("torch", "python", "machine", "corpus udhr", "model tiny", "all pins", "claims and criteria"):
        assert f"| {name} |" in text
    assert len({line.count("|") for line in text.splitlines()}) == 1


def test_times_are_kept_beside_the_copies_and_summed(tmp_path: Path):
    noted = {"stamp": "0123456789abcdef", "parameters": {"model": "x"}, "results": []}
    for name in ("00_a", "01_b", "02_c"):
        nbformat.write(new_notebook(metadata={"mechanism": noted}), tmp_path / f"{name}.ipynb")
    note_time("00_a", 1.26, tmp_path)
    note_time("01_b", 2.0, tmp_path)
    note_time("gone", 50.0, tmp_path)
    assert read_times(tmp_path)["00_a"]["seconds"] == 1.3
    rows = notebooks_markdown(tmp_path).splitlines()[2:]
    assert rows[0].startswith("| 00_a | `0123456789ab` | model=x | 1.3 |")
    assert "not noted" in rows[2]
    assert rows[-1] == "| all |  |  | 3.3 |  |"


def test_citation_says_what_the_citation_file_says(tmp_path: Path):
    found = yaml.safe_load(CITATION.read_text("utf-8"))
    text = citation_markdown()
    assert found["title"] in text
    assert f"version = {{{found['version']}}}" in text
    person = {"family-names": "Doe", "given-names": "Jo"}
    (tmp_path / "c.cff").write_text(yaml.safe_dump(found | {"authors": [person], "date-released": "2026-11-30"}))
    assert "author = {{Doe, Jo}}" in citation_markdown(tmp_path / "c.cff")
    assert "year = {2026}" in citation_markdown(tmp_path / "c.cff")
