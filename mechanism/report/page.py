"""What the pages use of this room, by one name each, and what one about a model opens with."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from IPython.display import Markdown

from ..models.load import load_model, resolve, training_run
from ..models.work import watch
from . import behind, charts, figures
from .expert_maps import lift_map, lift_panels, static_maps
from .explorer import explorer
from .judge import Judge, planted_found
from .provenance import Provenance, provenance
from .record import number, record
from .tables import interval_text, listing, page_table, with_intervals

__all__ = [
    "Judge", "Page", "charts", "explorer", "figures", "interval_text", "lift_map", "lift_panels", "listing", "number",
    "open_page", "page_table", "planted_found", "profile_text", "provenance", "record", "static_maps",
    "with_intervals",
]  # fmt: skip


@dataclass(frozen=True)
class Page:
    """A page on a model.

    Attributes:
        model: as the notebook names it; loaded: the model; tokenizer: its own.
        run: name of its training record, None without one.
        settings: parameters of the page that its provenance states.
    """

    model: str
    loaded: Any
    tokenizer: Any
    run: str | None
    settings: Mapping[str, Any]

    def provenance(self, **more: Any) -> Provenance:
        """Provenance of the page's numbers, with its settings and what else is given; see `provenance`."""
        return provenance(resolve(self.model), run=self.run, device=self.loaded.device, **{**self.settings, **more})


def open_page(model: str, device: str, dtype: str, **settings: Any) -> Page:
    """Set the look of figures and load the model, which must have routers.

    Args:
        settings: parameters of the page that its provenance states.

    Raises:
        ModelError: see `load_model`.
    """
    figures.use_style()
    loaded, tokenizer = load_model(model, device, dtype, moe=True)
    behind.ABOUT |= {"model": Path(resolve(model)).name}
    watch(loaded)
    return Page(model, loaded, tokenizer, training_run(model), {"dtype": dtype, **settings})


def profile_text(attrs: Mapping[str, Any], command: str) -> Markdown:
    """Which profile the claims of a page are judged on.

    Args:
        attrs: of what they are judged on: its `record`, and the `seconds` and the `command` that it took, if it is one.
        command: makes the full profile.
    """
    if "record" not in attrs:
        return Markdown(f"Judged on the small profile, run on this page; `{command}` makes and records the full one.")
    took = f", {attrs['seconds']:.0f} s" if "seconds" in attrs else ""
    return Markdown(f"Judged on the full profile: run `{attrs['record']}`{took}, made again by `{attrs['command']}`.")
