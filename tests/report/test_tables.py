import numpy as np
import pandas as pd

from mechanism.report.tables import interval_text, page_table

TABLE = pd.DataFrame({"estimate": [0.523, np.nan], "low": [0.441, np.nan], "high": [0.6, np.nan]}, index=["en", "sw"])


def test_an_interval_as_text():
    assert interval_text(TABLE).tolist() == ["0.52 [0.44, 0.60]", ""]
    assert interval_text(TABLE, 1)["en"] == "0.5 [0.4, 0.6]"
    assert interval_text(TABLE.iloc[:0]).empty


def test_a_cell_without_a_number_is_empty():
    shown = page_table(TABLE)._repr_html_()
    assert "<td>0.52</td>" in shown
    assert "<td></td>" in shown
    assert "NaN" not in shown
    counts = pd.DataFrame({"n": pd.array([3, None], dtype="Int64")})
    assert page_table(counts, index=False)._repr_html_().count("<td></td>") == 1
    assert "<td>3</td>" in page_table(counts)._repr_html_()
    assert "<th>en</th>" not in page_table(TABLE, index=False)._repr_html_()
