"""The front door: lazy, typed, and the same things that the rooms hold."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import mechanism as me

SOURCE = ast.parse(Path(str(me.__file__)).read_text("utf-8"))


def test_importing_it_takes_no_time_and_brings_nothing_along():
    code = """
import sys, time
start = time.perf_counter()
import mechanism
seconds = time.perf_counter() - start
heavy = {"torch", "transformers", "numpy", "pandas", "xarray"} & set(sys.modules)
print(seconds, *heavy)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, *heavy = done.stdout.split()
    assert float(seconds) < 0.1
    assert heavy == []


def test_verdicts_figures_and_measures_do_not_wait_for_torch():
    names = "mechanism.report.findings, mechanism.report.charts, mechanism.measure.seeds"
    code = f"import sys, {names}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("name", me.__all__)
def test_every_name_is_there(name: str):
    assert getattr(me, name) is not None
    assert name in dir(me)


def test_type_checkers_see_the_same_names():
    (typed,) = (node for node in SOURCE.body if isinstance(node, ast.If))
    seen = {
        alias.asname or alias.name: f"{node.module}" for node in typed.body if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }  # fmt: skip
    assert seen == me._HOME


def test_it_is_small():
    assert 30 <= len(me.__all__) <= 50


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'lead'"):
        me.lead  # noqa: B018
