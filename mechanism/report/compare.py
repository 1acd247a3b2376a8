"""Claims by models: what became of each claim in several runs of the report, on one page that needs nothing else."""

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .claims import load_claims
from .differences import HEADER, difference_rows
from .record import UNDECIDED
from .run_folder import Run
from .tables import markdown_table
from .verdicts import Verdict

_STYLE = """
:root { color-scheme: light dark; --line: #bbb; --quiet: #555; --head: #f2f2f2; }
@media (prefers-color-scheme: dark) { :root { --line: #555; --quiet: #bbb; --head: #222; } }
body { font: 16px/1.45 system-ui, sans-serif; margin: 1.5rem auto; max-width: 75rem; padding: 0 1rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: 1rem 0; width: 100%; }
th, td { border-bottom: 1px solid var(--line); padding: .35em .6em; text-align: left; vertical-align: top; }
thead th { background: var(--head); }
td { overflow-wrap: anywhere; min-width: 9rem; }
small { color: var(--quiet); display: block; }
.verdict { border: 1px solid currentColor; border-radius: .3em; padding: 0 .35em; white-space: nowrap; }
.verdict-replicated { color: #00664a; background: #e3f5ee; }
.verdict-partly { color: #6b4a00; background: #fdf1d8; }
.verdict-refuted { color: #8f2d00; background: #fde7dd; }
.verdict-inconclusive { color: #2f3f6b; background: #e6ebf8; }
.verdict-not-testable { color: #3d3d3d; background: #ececec; }
.verdict-undecided { border-style: dashed; }
"""


def compare_rows(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """One mapping per claim that any of the runs judged or left undecided, in the order of the claims file: `id`,
    `statement`, `source_figure`, `criterion`, and `models`, a cell by label (see `Run.cell`)."""
    seen = {claim for run in runs for claim in (*run.records, *run.undecided)}
    return [
        {
            "id": claim.id,
            "statement": claim.statement,
            "source_figure": claim.source_figure,
            "criterion": claim.criterion,
            "models": {run.label: run.cell(claim.id) for run in runs},
        }
        for claim in load_claims().values()
        if claim.id in seen
    ]


def warnings(runs: Sequence[Run]) -> list[str]:
    """Why the columns may not be comparable: other code, settings, or rules."""
    own = [run for run in runs if run.summary]
    code = {run.summary["environment"].get("mechanism") for run in own}
    found = ["The runs were made by different versions of the code."] if len(code) > 1 else []
    for name in dict.fromkeys(name for run in own for name in run.summary["settings"]):
        if len({str(run.summary["settings"].get(name)) for run in own}) > 1:
            found.append(f"The runs differ in {name.replace('_', ' ')}.")
    if len({run.summary["model"]["tokenizer"] for run in own if run.summary["model"].get("tokenizer")}) > 1:
        found.append("The models have other tokenizers, by whose tokens texts are cut and wrong answers are chosen.")
    for row in compare_rows(runs):
        if len({cell["rule"] for cell in row["models"].values() if cell.get("rule")}) > 1:
            found.append(f"{row['id']} was judged by different rules.")
    found += [
        f"The run of {run.label} is not complete: {run.summary['state']}."
        for run in own
        if run.summary["state"] != "complete"
    ]
    return found


def compare_markdown(runs: Sequence[Run]) -> str:
    """The table of claims by models in Markdown."""
    rows = []
    for row in compare_rows(runs):
        cells = (": ".join(filter(None, (c["label"], _figures(c)))) for c in row["models"].values())
        rows.append([f"**{row['id']}** {row['statement']}", *cells])
    table = markdown_table(["Claim", *(run.label for run in runs)], rows)
    beside = ["", markdown_table(HEADER, rows)] if (rows := difference_rows(runs)) else []
    return "\n".join([table, *beside, "", *(f"- {one}" for one in warnings(runs))]).strip() + "\n"


def compare_html(runs: Sequence[Run]) -> str:
    """The page: claims by models, pages by models, and what the numbers come from. It loads nothing."""
    title = html.escape("Claims by models" if len(runs) > 1 else f"Claims on {runs[0].label}")
    notes = "".join(f"<li>{html.escape(one)}</li>" for one in warnings(runs))
    own = [run for run in runs if run.summary]
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title><style>{_STYLE}</style>
</head>
<body>
<h1>{title}</h1>
<p>Verdicts are these runs' own, computed by the report's rules; they are not recorded in the report.</p>
{f"<ul>{notes}</ul>" if notes else ""}
{_claims_table(runs)}
{_differences(runs)}<h2>Notebooks</h2>
{_pages_table(own)}
<h2>Where the numbers come from</h2>
{_origin_table(own)}
</body>
</html>
"""


def _claims_table(runs: Sequence[Run]) -> str:
    rows = []
    for row in compare_rows(runs):
        about = f"{html.escape(row['statement'])}<small>Source: {html.escape(row['source_figure'])}</small>"
        cells = (_cell(cell) for cell in row["models"].values())
        rows.append([f"<b>{row['id']}</b> {about}", *cells])
    return _table(["Claim", *(run.label for run in runs)], rows) if rows else "<p>No claim was judged.</p>"


def _differences(runs: Sequence[Run]) -> str:
    rows = [[html.escape(cell) for cell in row] for row in difference_rows(runs)]
    told = (
        "Document by document, item by item or language by language: these are the clusters. Each interval is of 95 %; "
        "p is corrected over all tests of this page (Holm), and the smallest difference is one that such a test sees "
        "with a probability of 80 %."
    )
    return f"<h2>Differences on the same texts</h2>\n<p>{told}</p>\n{_table(HEADER, rows)}\n" if rows else ""


def _cell(cell: Mapping[str, Any]) -> str:
    kind = Verdict(cell["verdict"]).name.lower().replace("_", "-") if cell["verdict"] else UNDECIDED
    badge = f'<span class="verdict verdict-{kind}">{html.escape(cell["label"])}</span>'
    small = filter(None, (_figures(cell), cell["note"]))
    return badge + "".join(f"<small>{html.escape(text)}</small>" for text in small)


def _figures(cell: Mapping[str, Any]) -> str:
    if cell.get("estimate") is None:
        return ""
    low, high = cell["interval"]
    told = f"{cell['estimate']:.3g} [{low:.3g}, {high:.3g}] {cell['unit'] or ''}".strip()
    return told + f", n = {cell['n']:,}" + (f", p = {cell['p']:.2g}" if cell["p"] is not None else "")


def _pages_table(runs: Sequence[Run]) -> str:
    names = sorted({name for run in runs for name in (*run.summary["notebooks"], *run.summary["skipped"])})
    rows = [[html.escape(name), *(html.escape(_page(run.summary, name)) for run in runs)] for name in names]
    return _table(["Notebook", *(run.label for run in runs)], rows)


def _page(summary: Mapping[str, Any], name: str) -> str:
    page = summary["notebooks"].get(name)
    if page is None:
        return f"skipped: {summary['skipped'].get(name, 'not run yet')}"
    took = f", {page['seconds']} s" if "seconds" in page else ""
    return page["status"] + took + (f": {page['reason']}" if page.get("reason") else "")


def _origin_table(runs: Sequence[Run]) -> str:
    columns = [
        {f"model {k}": v for k, v in run.summary["model"].items()}
        | {k: v for k, v in run.summary["settings"].items() if v not in (None, [])}
        | dict(run.summary["environment"])
        for run in runs
    ]
    names = list(dict.fromkeys(name for column in columns for name in column))
    rows = [[html.escape(n), *(html.escape(str(column.get(n, ""))) for column in columns)] for n in names]
    return _table(["", *(run.label for run in runs)], rows)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table from a plain header and cells of HTML, the first of a row its heading."""
    top = "".join(f'<th scope="col">{html.escape(text)}</th>' for text in header)
    body = "".join(
        f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in rest)}</tr>' for first, *rest in rows
    )
    return f'<div class="scroll" tabindex="0"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'
