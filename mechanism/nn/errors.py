"""Errors of layers and of their accounting."""


class LayerError(ValueError):
    """A layer that cannot be built, or an input that it cannot take; the sentence says why and what to do."""
