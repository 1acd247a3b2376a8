"""Settings for every test: offline, repeatable, and with array shapes and types checked at each call."""

import os
import sys

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
from jaxtyping import install_import_hook

# Libraries are imported above, since the hook compiles anew what a module of the package is first to import.
if any(name.startswith("mechanism.") for name in sys.modules):
    raise RuntimeError("mechanism was imported before the type-checking hook could be installed")
install_import_hook("mechanism", "beartype.beartype")

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
