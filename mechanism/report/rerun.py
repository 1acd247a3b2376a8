"""The report on another model: every notebook that applies, into a folder of its own, resumable."""

import gc
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..models.allocator import release_memory
from ..models.load import load_model, model_hash, parse_device, pinned, require_memory, resolve
from ..study.base.records import OWN
from ..trace.checks import QUICK, require
from .build import BuildError, build_notebooks, stale, variables
from .compare import compare_html
from .execute import CellFailure
from .explorer import with_explorer
from .files import INPUTS, NOTEBOOKS, file_sha256, tree_hash, write_atomic
from .forecast import forecast, told, watching
from .judge import RUN
from .provenance import SHORT, provenance
from .rerun_plan import Plan, Rerun, plan
from .run_folder import INDEX, PAGES, RECORDS, STUDIES, RerunError, load_run, prepare, read_summary, write_summary
from .stamp import recorded

_PATH_OF_CLASS = re.compile(r"^(?:\w+\.)+(?=\w+: )")
_DEAD = "the kernel died, most likely out of memory: lower --max-segments, or take --dtype bfloat16"
_MEMORY = ("OutOfMemoryError", "MemoryError", "allocate memory")
Tell = Callable[[str], None]


def rerun(
    asked: Rerun,
    sources: Path = NOTEBOOKS,
    inputs: Iterable[Path] = INPUTS,
    tell: Tell = lambda line: None,
    progress: bool = True,
) -> dict[str, Any]:
    """Run every notebook that applies, skip what is unchanged, and write `run.json` after each.

    Args:
        sources: folder of the notebooks; inputs: what every notebook depends on.
        tell: called with a line for every step.
        progress: show progress on the terminal.

    Returns the summary, as it stands in `run.json`.

    Raises:
        RerunError: the folder cannot be used or holds another model's run, or pages failed; the others are kept.
        BuildError: no such notebook.
        ModelError, TraceError: the model cannot be had, held or observed.
    """
    folder = asked.out.resolve()
    prepare(folder)
    former = read_summary(folder)
    model, identity = _identify(asked.model, former)
    chosen = plan(asked, model, sources)
    summary = former | _head(asked, identity, chosen)
    hashed = tree_hash(inputs)
    where: dict[str, Any] = {
        "output": folder / PAGES, "sources": sources, "results": folder / RECORDS, "inputs": hashed,
    }  # fmt: skip
    for line in chosen.read:
        tell(f"read: {line}")
    for name, reason in chosen.skipped.items():
        tell(f"{name}: skipped, {reason}")
    with _saved(folder, summary), variables(**{RUN: identity["id"], OWN: str(folder / STUDIES)}):
        todo = [n for n, given in chosen.pages.items() if asked.force or stale((n,), given, **where)]
        if todo:
            proved = _prove(model, asked, tell, {name: chosen.pages[name] for name in todo}, sources)
            summary |= proved | {"forecast": former.get("forecast", {}) | proved.get("forecast", {})}
        for name, given in chosen.pages.items():
            row = summary.get("forecast", {}).get(name, {})
            with watching(name, row, progress and name in todo) as watch:
                page = _page(name, given, name in todo, former, where, progress and not row.get("tokens"))
                page = summary["notebooks"][name] = page | (watch.summary() if name in todo else {})
            took = f" in {page['seconds']} s" if name in todo else ""
            tell(f"{name}: {page['status']}{took}" + (f", {page['reason']}" if page["status"] == "failed" else ""))
            write_summary(folder, summary)
    pages = {name: summary["notebooks"][name] for name in chosen.pages}
    failed = [f"{name}, {page['reason']}" for name, page in pages.items() if page["status"] == "failed"]
    if failed:
        raise RerunError(
            f"{len(failed)} of {len(pages)} notebooks failed ({'; '.join(failed)}); the others are kept in {folder}, "
            "the same command goes on from there"
        )
    return summary


def _identify(spec: str, former: Mapping[str, Any]) -> tuple[str, dict[str, str]]:
    """What the notebooks load, and what it is; a model on a hub keeps the commit of the former run in this folder.

    Raises:
        RerunError: the folder holds the run of another model.
    """
    before = former.get("model", {})
    model = before["id"] if before.get("asked") == spec and "@" in before["id"] else pinned(spec)
    where = Path(resolve(model))
    identity = {"asked": spec, "id": model, "name": where.name, "hash": model_hash(model)}
    if (known := where / "tokenizer.json").exists():
        identity["tokenizer"] = file_sha256(known)[:SHORT]
    if before and before["hash"] != identity["hash"]:
        raise RerunError(
            f"the folder holds a run of {before['id']} ({before['hash']}), and this is {model} ({identity['hash']}): "
            "name another with --out"
        )
    return (str(where.resolve()) if Path(spec).is_dir() else model), identity


def _head(asked: Rerun, identity: Mapping[str, str], chosen: Plan) -> dict[str, Any]:
    device = parse_device(asked.device)
    texts = [*filter(None, [asked.parallel]), *asked.domains]
    origin = provenance(resolve(identity["id"]), data=texts, device=device, dtype=asked.dtype, seed=asked.seed)
    names = ("device", "dtype", "profile", "languages", "parallel", "domains", "max_segments", "seed")
    return {
        "model": dict(identity),
        "state": "running",
        "settings": {name: getattr(asked, name) for name in names},
        "environment": dict(origin.rows()),
        "skipped": dict(chosen.skipped),
        "read": list(chosen.read),
    }


@contextmanager
def _saved(folder: Path, summary: dict[str, Any]) -> Iterator[None]:
    """The summary and its page are written whatever happens, and say how it ended."""
    summary["notebooks"] = dict(summary.get("notebooks", {}))
    write_summary(folder, summary)
    try:
        yield
    except BaseException as error:
        summary["state"] = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        summary["reason"] = str(error)
        raise
    else:
        failed = any(page["status"] == "failed" for page in summary["notebooks"].values())
        summary["state"] = "failed" if failed else "complete"
        summary.pop("reason", None)
    finally:
        write_summary(folder, summary)
        write_atomic(folder / INDEX, with_explorer(compare_html([load_run(folder)]), folder, PAGES))


def look_ahead(asked: Rerun, sources: Path = NOTEBOOKS, tell: Tell = lambda line: None) -> dict[str, Any]:
    """Tell what a run takes, and stop there: nothing is written.

    Returns the forecast by page, see `forecast`.

    Raises:
        as `rerun`.
    """
    model = _identify(asked.model, read_summary(asked.out))[0]
    chosen = plan(asked, model, sources)
    for name, reason in chosen.skipped.items():
        tell(f"{name}: skipped, {reason}")
    with variables(**{OWN: str(asked.out.resolve() / STUDIES)}):
        return _prove(model, asked, tell, chosen.pages, sources)["forecast"]


def _prove(
    model: str, asked: Rerun, tell: Tell, pages: Mapping[str, Mapping[str, Any]], sources: Path
) -> dict[str, Any]:
    """Load the model once, after asking whether it fits, prove that its routing can be believed, and forecast what the
    pages take.

    Raises:
        ModelError: it does not fit, or cannot be loaded.
        TraceError: it cannot be observed; the sentence names the contract.
    """
    needed = require_memory(model, asked.device, asked.dtype)
    tell(f"memory, estimated: {needed}")
    start = time.monotonic()
    loaded, tokenizer = load_model(model, asked.device, asked.dtype, moe=True)
    require(loaded)
    used, seconds = str(loaded.device), round(time.monotonic() - start, 1)
    rows = forecast((loaded, tokenizer), pages, sources, needed.needed)
    del loaded
    gc.collect()
    release_memory()
    names = [contract.__name__ for contract in QUICK]
    tell(f"loaded on {used} in {seconds} s; contracts hold: {', '.join(names)}")
    for line in told(rows):
        tell(f"forecast: {line}")
    estimate = {"parameters": needed.parameters, "weights": needed.weights, "needed": needed.needed}
    return {"memory": estimate, "contracts": names, "loaded": {"device": used, "seconds": seconds}, "forecast": rows}


def _page(
    name: str, given: Mapping[str, Any], run: bool, former: Mapping[str, Any], where: dict[str, Any], progress: bool
) -> dict[str, Any]:
    """Execute one notebook, unless it is unchanged; what became of it."""
    copy: Path = where["output"] / f"{name}.ipynb"
    if not run:
        before = former.get("notebooks", {}).get(name, {})
        return before | {"status": "unchanged", "parameters": dict(given), "claims": _claims(copy)}
    try:
        built = build_notebooks((name,), True, given, progress=progress, **where)
    except BuildError as error:
        if error.built is None:
            raise
        built = error.built
    except OSError as error:
        told = f"cannot write {name} to {copy.parent} ({error.strerror or error}); finished notebooks are kept"
        raise RerunError(told) from error
    found = {"seconds": round(built.seconds[name], 1), "parameters": dict(given)}
    if built.failures:
        return {"status": "failed", **found, "reason": sentence(built.failures[0])}
    return {"status": "executed", **found, "claims": _claims(copy)}


def _claims(copy: Path) -> list[str]:
    """Claims that an executed page judged."""
    return [Path(file).stem for file in recorded(copy).get("results", ()) if "/" not in file]


def sentence(failure: CellFailure) -> str:
    """Why a notebook stopped, in one line."""
    lines = [line.strip() for line in failure.reason.splitlines() if line.strip()]
    last = _PATH_OF_CLASS.sub("", lines[-1]) if lines else "no reason was given"
    if failure.cell == 0 and "Dead" in last:
        return _DEAD
    told = f"cell {failure.cell}: {last}" if failure.cell else last
    return f"{told}; out of memory: {_DEAD.split(': ')[1]}" if any(word in last for word in _MEMORY) else told
