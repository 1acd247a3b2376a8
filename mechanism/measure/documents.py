"""Routing of documents summed over their tokens, and sums of these over domains."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped


def alternate(codes: Int[np.ndarray, "document"]) -> Int[np.ndarray, "document"]:
    """0 and 1 in turn within each domain, whose numbers these are."""
    half = np.empty(len(codes), dtype=np.int64)
    for code in range(int(codes.max()) + 1):
        own = np.flatnonzero(codes == code)
        half[own] = np.arange(len(own)) % 2
    return half


@dataclass(frozen=True, eq=False)
class Documents:
    """What each document asked of each expert; see `importance.slot_sums`.

    Attributes:
        domain: label of each document; tokens: number of its tokens.
        selections: number of its tokens that selected the expert; 0 for experts that a layer does not have.
        weight: sum over these tokens of the gate weight `g` that the experts received, if known.
        activity: sum over these tokens of `|g| ||E(x)||`, if known.
        peak: largest absolute output of the expert over these tokens (0 if there are none), if known.
        layers: the model's index of each layer; 0, 1, ... without it.

    Raises:
        ValueError: shapes that do not fit, a document without tokens, more selections than tokens, a value that is not
            finite, or fewer than two domains.
    """

    domain: Shaped[np.ndarray, "document"]
    tokens: Shaped[np.ndarray, "document"]
    selections: Shaped[np.ndarray, "document layer expert"]
    weight: Shaped[np.ndarray, "document layer expert"] | None = None
    activity: Shaped[np.ndarray, "document layer expert"] | None = None
    peak: Shaped[np.ndarray, "document layer expert"] | None = None
    layers: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        known = self._known
        if {len(self.domain), len(self.tokens)} != {len(self.selections)} or len({v.shape for v in known.values()}) > 1:
            raise ValueError("domains, tokens and values have to be of the same documents, layers and experts")
        if self.layers and len(self.layers) != self.selections.shape[1]:
            raise ValueError(f"{len(self.layers)} layer indices for {self.selections.shape[1]} layers")
        if wrong := [name for name, values in known.items() if not np.isfinite(values).all()]:
            raise ValueError(f"{', '.join(wrong)}: a value is not finite")
        if not (self.tokens > 0).all() or (self.selections > self.tokens[:, None, None]).any():
            raise ValueError("a document has no tokens, or an expert was selected by more tokens than there are")
        if len(self.names) < 2:
            raise ValueError("specialisation is between domains: there have to be at least two")

    @property
    def _known(self) -> dict[str, np.ndarray]:
        arrays = {name: getattr(self, name) for name in ("selections", "weight", "activity", "peak")}
        return {name: values for name, values in arrays.items() if values is not None}

    @cached_property
    def names(self) -> Shaped[np.ndarray, "domain"]:
        """Distinct domains, sorted."""
        return np.unique(self.domain)

    @cached_property
    def codes(self) -> Shaped[np.ndarray, "document"]:
        """Position of each document's domain in `names`."""
        return np.searchsorted(self.names, self.domain)

    def subset(self, kept: Bool[np.ndarray, "document"]) -> "Documents":
        """Some of the documents.

        Raises:
            ValueError: fewer than two domains are left.
        """
        own: dict[str, Any] = {name: values[kept] for name, values in self._known.items()}
        return replace(self, domain=self.domain[kept], tokens=self.tokens[kept], **own)

    def halves(self) -> tuple["Documents", "Documents"]:
        """Every second document of each domain, and the others: two sets of the same domains.

        Raises:
            ValueError: a domain with a single document.
        """
        counts = np.bincount(self.codes)
        if counts.min() < 2:
            raise ValueError(f"domain {str(self.names[counts.argmin()])!r} has a single document: it cannot be halved")
        half = alternate(self.codes)
        return self.subset(half == 0), self.subset(half == 1)

    def values(self, name: str) -> Shaped[np.ndarray, "document layer expert"]:
        """An array by name.

        Raises:
            ValueError: it is not known.
        """
        if name not in self._known:
            raise ValueError(f"these documents were recorded without {name!r}, which the measure needs")
        return self._known[name]


class Domains:
    """Documents gathered into domains, each with a multiplicity: 1 in its own domain for the data as they are; other
    labels for a null, numbers of draws for a bootstrap.

    Args:
        documents: what to gather; multiplicity: of each document in each domain, the data's own without it.

    Raises:
        ValueError: a domain without documents.
    """

    def __init__(self, documents: Documents, multiplicity: Float[np.ndarray, "domain document"] | None = None) -> None:
        self.documents = documents
        own = (documents.codes == np.arange(len(documents.names))[:, None]).astype(np.float64)
        self.multiplicity = own if multiplicity is None else multiplicity
        if not self.multiplicity.any(1).all():
            raise ValueError("every domain needs a document")
        self.tokens: np.ndarray = self.multiplicity @ documents.tokens

    def total(self, name: str) -> Float[np.ndarray, "layer expert domain"]:
        """Sum over the documents of a domain."""
        return self._weighted(self.multiplicity, self.documents.values(name))

    def mean(self, name: str) -> Float[np.ndarray, "layer expert domain"]:
        """Mean over the documents of a domain, whatever their length, of the mean over their tokens."""
        shares = self.multiplicity / self.multiplicity.sum(1, keepdims=True) / self.documents.tokens
        return self._weighted(shares, self.documents.values(name))

    def largest(self, name: str) -> Float[np.ndarray, "layer expert domain"]:
        """Largest value over the documents of a domain."""
        values = self.documents.values(name)
        return np.stack([values[row > 0].max(0) for row in self.multiplicity], -1).astype(np.float64)

    @staticmethod
    def _weighted(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
        flat = values.reshape(len(values), -1).astype(np.float64)
        return np.asarray((weights @ flat).T.reshape(*values.shape[1:], len(weights)))
