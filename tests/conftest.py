"""Settings for every test: offline, repeatable, and with array shapes and types checked at each call."""

import os
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("MALLOC_MMAP_MAX_", "0")  # commands that keep memory start their process again without it
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import hypothesis
import matplotlib.pyplot  # noqa: F401
import pytest
import scipy.optimize
import scipy.stats  # noqa: F401
import transformers.modeling_utils  # noqa: F401
from beartype.claw import beartype_package
from jaxtyping import install_import_hook

# Libraries are imported above, since the hooks compile anew what a module of the package is first to import.
if any(name.startswith("mechanism.") for name in sys.modules):
    raise RuntimeError("mechanism was imported before the type-checking hooks could be installed")
ROOT = Path(__file__).parents[1]
UNSHAPED = ("corpus", "models", "study", "trace")
"""Rooms whose annotations tell no shapes, but for files that import jaxtyping: beartype alone checks their types, in a
tenth of the time of a call that goes through jaxtyping."""
beartype_package("mechanism")
install_import_hook(
    [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in sorted((ROOT / "mechanism").rglob("*.py"))
        if path.relative_to(ROOT).parts[1] not in UNSHAPED or "jaxtyping" in path.read_text(encoding="utf-8")
    ],
    "beartype.beartype",
)

hypothesis.settings.register_profile("repeatable", derandomize=True, database=None, deadline=None)
hypothesis.settings.load_profile("repeatable")


LONG = ("tests/notebooks/", "tests/report/test_site", "tests/contracts/", "tests/study/", "tests/trace/", "tests/nn/")
"""Files that take minutes: they begin first, so that no process ends long after the others."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first. Tests marked `gpu` are skipped where torch sees none."""
    items.sort(key=lambda item: next((i for i, place in enumerate(LONG) if item.nodeid.startswith(place)), len(LONG)))
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if marked:
        import torch

        if not torch.cuda.is_available():
            for item in marked:
                item.add_marker(pytest.mark.skip(reason="torch sees no GPU"))


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Torch's global generator starts every test alike."""
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)
