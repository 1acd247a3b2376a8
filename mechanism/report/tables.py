"""Tables of the report as a page shows them."""

import pandas as pd
from IPython.display import HTML


def interval_text(table: pd.DataFrame, digits: int = 2) -> pd.Series:
    """`0.52 [0.44, 0.60]` from columns `estimate`, `low` and `high`; empty where there is no estimate."""
    parts = [table[name].map(f"{{:.{digits}f}}".format).astype(object) for name in ("estimate", "low", "high")]
    text = parts[0] + " [" + parts[1] + ", " + parts[2] + "]"
    return text.where(table["estimate"].notna(), "")


def page_table(table: pd.DataFrame, digits: int = 2, index: bool = True) -> HTML:
    """A table for the page: numbers to so many digits, nothing where there is none."""
    shown = table.astype(object).where(table.notna(), "")  # na_rep leaves <NA> of nullable integers
    return HTML(shown.to_html(classes="dataframe", float_format=f"{{:.{digits}f}}".format, index=index))
