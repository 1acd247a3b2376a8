"""What a built site shows, by content hash: whether it still follows from the sources, and was not changed by hand."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .files import BOOK, COPIES, INPUTS, NOTEBOOKS, file_sha256, results_folder, tree_hash, write_atomic
from .stamp import read_notebook, recorded, stamp

SITE = BOOK / "_build" / "html"
STAMPS = "stamps.json"


def site_stamps(copies: Path = COPIES, results: Path | None = None) -> dict[str, Any]:
    """What a site built now would show: `notebooks`, each with the `stamp` of what it follows from, its `parameters`
    and the `sha256` of the executed copy; and the hash of the `records`."""
    notebooks = {
        copy.stem: {
            **{key: recorded(copy).get(key) for key in ("stamp", "parameters")},
            "sha256": file_sha256(copy),
        }
        for copy in sorted(copies.glob("*.ipynb"))
    }
    return {"notebooks": notebooks, "records": tree_hash([results_folder(results)], (".json",))}


def write_stamps(site: Path, copies: Path = COPIES, results: Path | None = None) -> Path:
    """Write `stamps.json` into a site that was just built."""
    path = site / STAMPS
    write_atomic(path, json.dumps(site_stamps(copies, results), indent=1) + "\n")
    return path


def read_stamps(site: Path = SITE) -> dict[str, Any]:
    """The stamps of a built site.

    Raises:
        FileNotFoundError: no site, or one without stamps; the message says how to build it.
    """
    path = site / STAMPS
    if not path.exists():
        raise FileNotFoundError(f"no {STAMPS} in {site}: build the site with `mechanism book`")
    return json.loads(path.read_text("utf-8"))


def altered(site: Path = SITE) -> list[str]:
    """Notebooks of a site whose published outputs are not those of the build, one sentence each."""
    shown = read_stamps(site)["notebooks"]
    paths = {name: site / "_sources" / "notebooks" / f"{name}.ipynb" for name in shown}
    missing = [f"{name}: its executed copy is gone" for name, path in paths.items() if not path.exists()]
    return missing + [
        f"{name}: its outputs were changed after the build"
        for name, path in paths.items()
        if path.exists() and file_sha256(path) != shown[name]["sha256"]
    ]


def outdated(
    site: Path = SITE, sources: Path = NOTEBOOKS, inputs: Iterable[Path] = INPUTS, results: Path | None = None
) -> list[str]:
    """What a site shows that no longer follows from the sources, one sentence each: notebooks, by text, parameters and
    inputs; and the records of the verdicts."""
    found, hashed = read_stamps(site), tree_hash(inputs)
    shown: Mapping[str, Any] = found["notebooks"]
    told = []
    for name in sorted({path.stem for path in sources.glob("*.ipynb")} | set(shown)):
        path = sources / f"{name}.ipynb"
        if name not in shown:
            told.append(f"{name}: it is not in the site")
        elif not path.exists():
            told.append(f"{name}: its source is gone")
        elif stamp(read_notebook(path), shown[name]["parameters"] or {}, hashed) != shown[name]["stamp"]:
            told.append(f"{name}: the notebook, its parameters, the package, the data or the pins changed since it ran")
    own = any(entry["parameters"] for entry in shown.values())
    if not own and tree_hash([results_folder(results)], (".json",)) != found["records"]:
        told.append("records: a verdict or a number was recorded after the build")
    return told
