"""What a page about a model opens with: the look of its figures, the model, and where its numbers come from."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..models.load import load_model, resolve, training_run
from .figures import use_style
from .provenance import Provenance, provenance


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
    use_style()
    loaded, tokenizer = load_model(model, device, dtype, moe=True)
    return Page(model, loaded, tokenizer, training_run(model), {"dtype": dtype, **settings})
