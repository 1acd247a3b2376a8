"""Serve MathJax and plotly.js from the book itself, and load plotly.js only on pages that draw with it.

The folders are added after Jupyter Book has looked for scripts, since it would put all it finds on every page.
"""

import shutil
from pathlib import Path
from typing import Any

PLOTLY = "plotly.min.js"
PLOT_CLASS = "plotly-graph-div"


def add_vendored(app: Any, config: Any) -> None:
    config.html_static_path.append(str(Path(app.confdir) / "vendor"))


def load_where_used(app: Any, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    """plotly.js comes from the installed plotly, whose figures it must fit."""
    if PLOT_CLASS in (context.get("body") or ""):
        import plotly

        static = Path(app.outdir) / "_static"
        static.mkdir(parents=True, exist_ok=True)
        shutil.copy(Path(plotly.__file__).parent / "package_data" / PLOTLY, static / PLOTLY)
        app.add_js_file(PLOTLY, priority=1)


def setup(app: Any) -> dict[str, bool]:
    app.connect("config-inited", add_vendored)
    app.connect("html-page-context", load_where_used)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
