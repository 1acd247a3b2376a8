"""Why a model cannot be had, each reason in one sentence."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from huggingface_hub.errors import (
    GatedRepoError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    StrictDataclassError,
)
from safetensors import SafetensorError

from .memory import free_memory


class ModelError(ValueError):
    """A model that cannot be used here; the sentence says which and what to do."""


@contextmanager
def explained(spec: str, where: str) -> Iterator[None]:
    """Whatever keeps a model from being loaded, as one sentence."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        if Path(where).is_dir():
            raise ModelError(f"the model in {where} cannot be loaded: {_first_line(error)}") from error
        raise ModelError(_not_from_hub(spec, where, error)) from error
    except ModelError:
        raise
    except ImportError as error:
        told = _first_line(error)
        raise ModelError(f"{spec} needs a package that is not here: {told}; install it and run it again") from error
    except (ValueError, TypeError, KeyError, AttributeError, NotImplementedError, StrictDataclassError) as error:
        raise ModelError(f"{spec} cannot be loaded: {_first_line(error)}") from error
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and "allocate memory" not in str(error):
            raise
        free = f"{free_memory('cpu') / 1e9:.1f} GB of host memory is free"
        raise ModelError(
            f"out of memory while {spec} was loaded ({free}): take --dtype bfloat16 or a larger device"
        ) from error


def _not_from_hub(spec: str, where: str, error: BaseException) -> str:
    kinds = [type(one) for one in _causes(error)]
    if GatedRepoError in kinds:
        return f"{where!r} is gated: accept its conditions on its page, then log in with `hf auth login`"
    if RevisionNotFoundError in kinds:
        asked = spec.partition("@")[2] or "main"
        return f"{where!r} has no revision {asked!r}: name a branch, a tag or a commit of its page"
    if RepositoryNotFoundError in kinds:
        return f"the hub has no model {where!r}, or it is private: check the id, or log in with `hf auth login`"
    kind = next((one for one in kinds if one is not OSError), type(error)).__name__
    return (
        f"cannot get {spec!r} from the hub ({kind}); check the id and the network, unset "
        "HF_HUB_OFFLINE if it is set, or download the model and give its folder"
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
