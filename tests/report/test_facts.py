"""The table of facts is complete, and every source is in the bibliography."""

import pytest
import yaml

from mechanism.report.facts import FactError, bibliography, facts_table, load_facts, share_borne_out

ENTRY = {"id": "F1", "section": "1", "claim": "c", "published": "p", "verdict": "no source", "sources": []}


def test_committed_facts():
    facts = load_facts()
    table = facts_table(facts)
    assert len(table) == len(facts) >= 12
    assert 0 < share_borne_out(facts) < 0.5
    assert all("https://" in links for links, verdict in zip(table["sources"], table["verdict"], strict=True)
               if verdict != "no source")  # fmt: skip


def test_every_entry_of_the_bibliography_has_what_a_link_needs():
    for key, entry in bibliography().entries.items():
        assert entry.persons["author"], key
        assert {"year", "title"} <= set(entry.fields), key


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"claim": ""}, "fact F1 has no claim"),
        ({"verdict": "true"}, "verdict is 'true'"),
        ({"sources": ["nobody2020"]}, "nobody2020 is not in the bibliography"),
        ({"verdict": "contradicted"}, "a verdict without source"),
    ],
)
def test_bad_entries_are_refused(tmp_path, change, message):
    path = tmp_path / "facts.yaml"
    path.write_text(yaml.safe_dump([ENTRY | change]))
    with pytest.raises(FactError, match=message):
        load_facts(path)


def test_a_doubled_fact_is_refused(tmp_path):
    path = tmp_path / "facts.yaml"
    path.write_text(yaml.safe_dump([ENTRY, ENTRY]))
    with pytest.raises(FactError, match="stands twice"):
        load_facts(path)
