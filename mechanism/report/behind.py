"""The numbers behind a table or a figure, as a link to CSV that stands in the page itself."""

import base64
import functools
import itertools

import pandas as pd
from matplotlib.figure import Figure

from .axes import BEHIND
from .files import code_hash
from .provenance import SHORT
from .record import running_notebook

_PLACE = itertools.count(1)
ABOUT: dict[str, str] = {}
"""What the head of each file says of the model that the page observes; see `open_page`."""


def csv_link(table: pd.DataFrame) -> str:
    """A link to a table as CSV in full precision. Lines that begin with `#` say what it comes from:
    `pandas.read_csv(file, comment="#")` reads the rest."""
    page = running_notebook()
    head = {"page": page, "code": _code()[:SHORT], **ABOUT}
    text = "".join(f"# {name}: {value}\n" for name, value in head.items()) + table.to_csv(index=False)
    content = base64.b64encode(text.encode()).decode()
    return (
        f'<p class="behind"><a download="{page}-{next(_PLACE)}.csv" href="data:text/csv;base64,{content}">data</a></p>'
    )


@functools.cache
def _code() -> str:
    """Hash of the code, read once a page."""
    return code_hash()


def flat(table: pd.DataFrame | pd.Series) -> pd.DataFrame:
    """A table with its index as columns, unless that only counts, and with names of one level."""
    table = table.to_frame() if isinstance(table, pd.Series) else table
    names = [" ".join(str(part) for part in own if part != "") if isinstance(own, tuple) else own for own in table]
    table = table.set_axis([str(name) for name in names], axis=1)
    if isinstance(table.index, pd.RangeIndex) and table.index.name is None:
        return table
    index = table.index.to_frame().set_axis([str(name or "name") for name in table.index.names], axis=1)
    new = index[[name for name in index if name not in table]]
    return pd.concat([new, table], axis=1).reset_index(drop=True)


def drawn(figure: Figure) -> pd.DataFrame:
    """What the charts of a figure draw, one below the other; with several, `panel` says which."""
    tables = [(axis, flat(BEHIND[axis])) for axis in figure.axes if axis in BEHIND]
    if len(tables) < 2:
        return next((table for _, table in tables), pd.DataFrame())
    parts = []
    for place, (axis, table) in enumerate(tables, 1):
        name = axis.get_title() or axis.get_ylabel() or axis.get_xlabel()
        parts.append(pd.concat([pd.Series(name or str(place), table.index, name="panel"), table], axis=1))
    return pd.concat(parts, ignore_index=True)
