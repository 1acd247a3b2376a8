"""Tables of the page on provenance: what the book was built from, on what, and how long it took."""

import json
import platform
from pathlib import Path

import yaml

from .build import read_times
from .files import CLAIMS, CONSTRAINTS, COPIES, REPOSITORY, code_hash, file_sha256, tree_hash
from .provenance import SHORT, cpu_name, data_hashes, git_commit, package_version
from .stamp import recorded
from .tables import markdown_table

_LIBRARIES = ("torch", "transformers", "tokenizers", "numpy", "scipy", "pandas", "xarray", "matplotlib", "jupyter-book")
CITATION = REPOSITORY / "CITATION.cff"


def environment_markdown() -> str:
    """Versions, hashes and the machine of this build."""
    from ..models.load import MODELS

    rows = [
        ("package", f"mechanism {package_version('mechanism')}, code {code_hash()[:SHORT]}"),
        ("git commit", git_commit() or "not a checkout"),
        ("python", platform.python_version()),
        ("machine", cpu_name()),
        ("system", f"{platform.system()} {platform.machine()}"),
        *((name, package_version(name)) for name in _LIBRARIES),
        ("all pins", f"`requirements/constraints.txt`, sha256 {file_sha256(CONSTRAINTS)[:SHORT]}"),
        ("claims and criteria", f"`data/claims.yaml`, sha256 {file_sha256(CLAIMS)[:SHORT]}"),
        *((f"corpus {name}", f"sha256 {digest[:SHORT]}") for name, digest in data_hashes().items()),
        *((f"model {path.name}", f"sha256 {tree_hash([path])[:SHORT]}") for path in sorted(MODELS.iterdir())),
    ]
    return markdown_table(("what", "value"), rows)


def runs_markdown() -> str:
    """The recorded training runs of the report's own models."""
    from ..study.base.runs import records

    rows = []
    for name, folder in records().items():
        result = json.loads((folder / "result.json").read_text("utf-8"))
        state = "finished" if result.get("finished", True) else "in training"
        rows.append((name, f"`{folder.name}`", f"{result['tokens'] / 1e6:.1f}", f"{result['hours']:.2f}", state))
    return markdown_table(("run", "hash", "million tokens", "hours", "state"), rows)


def notebooks_markdown(copies: Path = COPIES) -> str:
    """The executed notebooks: content stamp, parameters given, seconds, and the processor if it was noted."""
    times, rows = read_times(copies), []
    for path in sorted(copies.glob("*.ipynb")):
        noted, time = recorded(path), times.get(path.stem, {})
        given = ", ".join(f"{k}={v}" for k, v in noted.get("parameters", {}).items()) or "defaults"
        seconds = f"{time['seconds']:.1f}" if time else "not noted"
        rows.append((path.stem, f"`{noted.get('stamp', 'none')[:SHORT]}`", given, seconds, time.get("machine", "")))
    if times:
        known = [time["seconds"] for name, time in times.items() if (copies / f"{name}.ipynb").exists()]
        rows.append(("all", "", "", f"{sum(known):.1f}", ""))
    return markdown_table(("notebook", "stamp", "parameters", "seconds", "machine"), rows)


def citation_markdown(path: Path = CITATION) -> str:
    """`CITATION.cff` as a sentence and as BibTeX."""
    found = yaml.safe_load(path.read_text("utf-8"))
    authors = [one.get("name") or f"{one['family-names']}, {one['given-names']}" for one in found["authors"]]
    year = str(found.get("date-released", ""))[:4]
    fields = {
        "author": " and ".join(f"{{{name}}}" for name in authors),
        "title": f"{{{found['title']}}}",
        "version": found["version"],
        "year": year,
        "url": found.get("repository-code", ""),
        "note": f"License: {found['license']}",
    }
    lines = [f"  {key} = {{{value}}}," for key, value in fields.items() if value]
    told = f"{'; '.join(authors)}{f' ({year})' if year else ''}. *{found['title']}*, version {found['version']}."
    return "\n".join([told, "", "```bibtex", "@software{mechanism,", *lines, "}", "```"])
