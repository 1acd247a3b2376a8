import pytest
from matplotlib import pyplot as plt

from mechanism.study.base import runs as training_runs


@pytest.fixture
def apart(tmp_path, monkeypatch):
    """Nothing of a page reaches the committed records; figures are closed."""
    monkeypatch.setenv("MECHANISM_RESULTS", str(tmp_path / "results"))
    monkeypatch.setattr(training_runs, "RUNS", tmp_path / "runs")
    yield
    plt.close("all")
