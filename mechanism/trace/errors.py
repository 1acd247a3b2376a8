"""Everything that `mechanism.trace` refuses, by kind; each message names the module, what was expected and the fix."""


class TraceError(RuntimeError):
    """Base of all errors of this room."""


class RouterError(TraceError):
    """A router that cannot be understood."""


class DenseModelError(RouterError):
    """A model without routers: it does not route at all."""


class AttachError(TraceError):
    """A model that cannot be observed as it stands: compiled, sharded, already attached, without weights."""


class CaptureError(TraceError):
    """A forward pass that cannot be recorded honestly: all padding, NaN logits, a mask of unknown meaning."""


class InterventionError(TraceError, ValueError):
    """An intervention that is out of range, contradicts another, or that this router cannot carry out."""


class ContractError(TraceError):
    """The model broke a contract of `mechanism.trace.checks`."""
