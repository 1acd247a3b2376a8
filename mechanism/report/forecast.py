"""What a run takes: passes, time, memory and disk of each page, told before it starts and kept honest while it runs."""

import ast
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..corpus.library import PARALLEL, committed
from ..models.choices import timed_choices
from ..models.passes import encode
from ..models.segments import segment_pass
from ..models.work import PROGRESS, Meter, Work
from ..study.d_domains import domain_experts, reweighting, swept_text
from ..study.d_domains.domain_text import SweepConfig
from ..study.d_domains.sweep import OPTIONS
from ..study.r_multilingual import routing, steering
from ..trace import find_sites
from .build import variables
from .execute import declared_parameters

Loaded = tuple[PreTrainedModel, PreTrainedTokenizerBase]
Asked = Mapping[str, Any]
TIMED, EARLY, PRIOR = 4096, 0.02, 0.2
"""Tokens of text that are timed; the share of a page's work after which the forecast is noted; and the share that the
forecast made beforehand counts as, while the page runs."""
UNKNOWN = "not counted beforehand"
FEW = dict.fromkeys(("03_bring_your_own_model", "04_token_explorer", "05_routing_in_ten_minutes"), "a few sentences")
"""Pages whose work is not worth counting."""


def _ten(lm: Loaded, own: Asked) -> list[Work]:
    options: dict[str, Any] = {name: tuple(own[name]) for name in ("data", "languages") if own[name]}
    return routing.work(*lm, *_about(own), max_segments=own["max_segments"], seed=own["seed"], **options)


def _twenty(lm: Loaded, own: Asked) -> list[Work]:
    config = domain_experts.DomainConfig(
        tuple(own["data"] or domain_experts.ENGLISH), tuple(own["languages"] or ()) or None, own["max_segments"]
    )
    return domain_experts.domain_work(*lm, *_about(own), config, tuple(own["data"] or PARALLEL))


def _twenty_one(lm: Loaded, own: Asked) -> list[Work]:
    config = SweepConfig.parse(own["data"], own["languages"], seed=own["seed"])
    return swept_text.sweep_work(*lm, *_about(own), config, own["max_segments"])


def _eleven(lm: Loaded, own: Asked) -> list[Work]:
    options: dict[str, Any] = {name: tuple(own[name]) if own[name] else None for name in ("languages", "layers")}
    options |= dict(zip(("generic", "domain"), own["data"] or (), strict=False))
    return steering.work(*lm, *_about(own), max_segments=own["max_segments"], seed=own["seed"], **options)


def _twenty_two(lm: Loaded, own: Asked) -> list[Work]:
    changes = {"domains": own["data"], "languages": own["languages"]}
    changes = {name: tuple(value) if value else None for name, value in changes.items()}
    return reweighting.work(*lm, *_about(own), items=own["max_segments"], seed=own["seed"], **changes)


def _about(own: Asked) -> tuple[str, str, str]:
    return own["model"], own["dtype"], own["profile"]


PAGES: Mapping[str, Callable[[Loaded, Asked], list[Work]]] = {
    "10_routing_by_language": _ten, "11_steering": _eleven, "20_domain_experts": _twenty,
    "21_driver_experts": _twenty_one, "22_reweighting": _twenty_two,
}  # fmt: skip
"""How the work of a page is counted beforehand; of other pages it is not known."""
KINDS: Mapping[str, Callable[..., Callable[[], object]]] = {
    "routes": lambda model, tokenizer, texts: lambda: segment_pass(model, tokenizer, texts, consistency=True),
    "contributes": domain_experts.timed_route,
    "counts": partial(domain_experts.timed_route, contributions=False),
    "sweeps": swept_text.timed_sweep,
    "chooses": timed_choices,
}
"""How each kind of work is timed."""


def forecast(lm: Loaded, pages: Mapping[str, Asked], sources: Path, memory: int) -> dict[str, dict[str, Any]]:
    """By page `tokens` (tokens times routed layers that they pass through), `passes` (of 4,096 tokens through all of
    them), `seconds`, `memory` and `disk` in bytes, with `at_most` where tokens and seconds are bounds; or `unknown`,
    why its work is not known.

    A few batches are run to take the time of each kind of work. Resampling and figures come on top of it.

    Args:
        pages: parameters of each; sources: folder of the notebooks; memory: bytes that the model needs.
    """
    works, pace = {name: _counted(lm, name, given, sources) for name, given in pages.items()}, dict[str, float]()
    for kind in sorted({one.kind for own in works.values() if not isinstance(own, str) for one in own if one.tokens}):
        try:
            pace[kind] = _seconds(lm, KINDS[kind])
        except (ValueError, RuntimeError) as error:
            told = f"not known, the time of what it does could not be taken: {error}"
            works = {name: told if _has(own, kind) else own for name, own in works.items()}
    return {name: _row(own, pace, len(find_sites(lm[0])), memory) for name, own in works.items()}


def _counted(lm: Loaded, name: str, given: Asked, sources: Path) -> list[Work] | str:
    """The work of a page, or why it is not known."""
    if name not in PAGES:
        return FEW.get(name, UNKNOWN)
    try:
        return PAGES[name](lm, _defaults(sources / f"{name}.ipynb") | dict(given))
    except (ValueError, RuntimeError) as error:
        return f"not known, {error}"


def _has(works: list[Work] | str, kind: str) -> bool:
    return not isinstance(works, str) and any(one.kind == kind for one in works)


def _row(works: Sequence[Work] | str, pace: Mapping[str, float], layers: int, memory: int) -> dict[str, Any]:
    if isinstance(works, str):
        return {"unknown": works, "memory": memory}
    tokens = float(sum(one.tokens for one in works))
    seconds = float(sum(one.tokens * pace.get(one.kind, 0.0) for one in works))
    memory += int(1e9 * OPTIONS.memory) * any(one.kind == "sweeps" for one in works)
    found = {"tokens": tokens, "passes": tokens / layers / TIMED, "seconds": seconds, "memory": memory}
    found |= {"at_most": True} if any(one.at_most for one in works) else {}
    return found | {"disk": sum(one.disk for one in works)}


def _defaults(path: Path) -> dict[str, Any]:
    return {name: ast.literal_eval(own["default"]) for name, own in declared_parameters(path).items()}


def _seconds(lm: Loaded, kind: Callable[..., Callable[[], object]]) -> float:
    """Seconds per token and layer, once it is warm."""
    texts = [text for text in committed("tech").columns["en"] if text.strip()]
    lengths = encode(lm[1], texts[:400])
    count = next((i for i in range(1, len(lengths)) if sum(map(len, lengths[:i])) > TIMED), len(lengths))
    kind(*lm, texts[:2])()
    run = kind(*lm, texts[:count])
    with Meter(lm[0]) as meter:
        start = time.perf_counter()
        run()
        took = time.perf_counter() - start
    return took / max(1, meter.done)


def told(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A line a page."""
    lines = []
    for name, row in rows.items():
        if "unknown" in row:
            lines.append(f"{name}: {row['unknown']}; memory {row['memory'] / 1e9:.1f} GB")
        elif not row["tokens"]:
            lines.append(f"{name}: nothing to pass, its result is recorded")
        else:
            size = f"memory {row['memory'] / 1e9:.1f} GB, disk at most {row['disk'] / 1e9:.2g} GB"
            most = "at most " * row.get("at_most", False)
            passed = f"{most}{row['passes']:,.1f} passes of {TIMED:,} tokens, {hours(row['seconds'])}"
            lines.append(f"{name}: {passed}, then resampling and figures; {size}")
    return lines


def hours(seconds: float) -> str:
    """`3.2 h`, or seconds or minutes where that is less."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"


@dataclass
class Watch:
    """The forecast of a page against its work, as the page writes it down.

    Attributes:
        tokens: of the forecast; path: that the page writes to; seconds: of the forecast, 0 where no pace was taken.
        early: what was forecast when the first 2 % were done, in seconds.
    """

    tokens: float
    path: Path
    seconds: float = 0.0
    early: dict[str, float] = field(default_factory=dict)

    def look(self) -> tuple[float, float] | None:
        """Share of the work that is done, and seconds that all of it takes: at the pace so far, together with the
        forecast as if that were a fifth of the work, and less the more is done; None before it begins. The first passes
        of a model are slower than the others. More work than was counted is no forecast: the share stays at 1."""
        done = self._read()
        if not done:
            return None
        share = min(1.0, done["tokens"] / self.tokens) if self.tokens else 1.0
        prior = PRIOR * (1 - share) if self.seconds else 0.0
        whole = (done["seconds"] + prior * self.seconds) / (share + prior)
        if share >= EARLY and not self.early:
            self.early = {"share": share, "seconds": whole}
        return share, whole

    def summary(self) -> dict[str, Any]:
        """What was done and how long it took, beside what was forecast early on."""
        self.look()
        done = self._read()
        return {"work": done | ({"early": self.early} if self.tokens else {})} if done else {}

    def _read(self) -> dict[str, Any]:
        try:
            return dict(json.loads(self.path.read_text("utf-8")))
        except (OSError, ValueError):
            return {}


@contextmanager
def watching(name: str, row: Mapping[str, Any], shown: bool) -> Iterator[Watch]:
    """Follow a page's work while it runs, on request with a bar on standard error.

    Args:
        row: of `forecast`, empty without one.
    """
    with TemporaryDirectory(prefix="mechanism-") as folder, variables(**{PROGRESS: f"{folder}/work.json"}):
        watch = Watch(row.get("tokens", 0.0), Path(folder) / "work.json", row.get("seconds", 0.0))
        over = threading.Event()
        columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:.0f} %")
        shown = shown and watch.tokens > 0
        with Progress(*columns, console=Console(stderr=True), transient=True, disable=not shown) as bar:
            task = bar.add_task(name, total=1.0)

            def follow() -> None:
                while not over.wait(1):
                    if (seen := watch.look()) is not None:
                        left = hours((1 - seen[0]) * seen[1])
                        bar.update(task, completed=seen[0], description=f"{name}, {left} left of {hours(seen[1])}")

            thread = threading.Thread(target=follow, daemon=True)
            thread.start()
            try:
                yield watch
            finally:
                over.set()
                thread.join()
