import numpy as np
import pandas as pd
import pytest

from mechanism.report.tables import interval_text, listing, page_table, with_intervals

TABLE = pd.DataFrame({"estimate": [0.523, np.nan], "low": [0.441, np.nan], "high": [0.6, np.nan]}, index=["en", "sw"])


def test_an_interval_as_text():
    assert interval_text(TABLE).tolist() == ["0.52 [0.44, 0.60]", ""]
    assert interval_text(TABLE, 1)["en"] == "0.5 [0.4, 0.6]"
    assert interval_text(TABLE.iloc[:0]).empty
    assert interval_text(TABLE.rename(columns={"estimate": "value"}))["en"] == "0.52 [0.44, 0.60]"


def test_a_table_without_bounds_has_no_intervals():
    with pytest.raises(ValueError, match="needs columns estimate, low and high; the table has estimate, low"):
        interval_text(TABLE[["estimate", "low"]])


def test_facts_stand_one_below_the_other_as_they_are():
    shown = listing({"run": "main", "loss": 2.123456, "tokens": 3})._repr_html_()
    assert "<th>run</th>" in shown
    assert "<td>2.123456</td>" in shown
    assert "value" not in shown


def test_a_cell_without_a_number_is_empty():
    shown = page_table(TABLE)._repr_html_()
    assert "<td>0.52</td>" in shown
    assert "<td></td>" in shown
    assert "NaN" not in shown
    counts = pd.DataFrame({"n": pd.array([3, None], dtype="Int64")})
    assert page_table(counts, index=False)._repr_html_().count("<td></td>") == 1
    assert "<td>3</td>" in page_table(counts)._repr_html_()
    assert "<th>en</th>" not in page_table(TABLE, index=False)._repr_html_()


def test_bounded_numbers_become_one_column_and_others_stay():
    table = pd.DataFrame({"moved": [1.0], "gain": [0.5], "gain, low": [0.1], "gain, high": [np.nan]})
    shown = with_intervals(table.assign(**{"gain, high": 0.9}), 1)
    assert shown.to_dict("records") == [{"moved": 1.0, "gain": "0.5 [0.1, 0.9]"}]
    assert with_intervals(table.assign(**{"gain, low": np.nan}))["gain"].tolist() == ["0.50"]
    assert with_intervals(table[["moved", "gain"]]).equals(table[["moved", "gain"]]), "nothing is bounded"
