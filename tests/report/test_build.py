"""The notebook build, on throw-away notebooks that import nothing heavy."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from joblib import cpu_count
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from mechanism.report.build import BuildError, Built, build_notebooks, stale
from mechanism.report.execute import typed
from mechanism.report.normalise import normalise, texts
from mechanism.report.stamp import read_notebook, recorded, stamp

DECLARED = {
    "seed": {"inferred_type_name": "int", "default": "0"},
    "size": {"inferred_type_name": "int", "default": "None"},
    "rate": {"inferred_type_name": "float", "default": "0.1"},
    "fast": {"inferred_type_name": "bool", "default": "True"},
    "model": {"inferred_type_name": "str", "default": "'tiny'"},
    "codes": {"inferred_type_name": "list", "default": "None"},
    "plain": {"inferred_type_name": "None", "default": "2"},
}
KERNEL = {"kernelspec": {"name": "python3", "language": "python", "display_name": "Python 3"}}
WRITES = """
import json, os, pathlib
folder = pathlib.Path(os.environ["MECHANISM_RESULTS"])
_ = (folder / "R1.json").write_text(json.dumps({"n": n}))
"""


def write(folder: Path, name: str, *cells: str, parameters: str | None = "n = 2") -> Path:
    folder.mkdir(exist_ok=True)
    codes = [new_code_cell(source, id=f"c{i}") for i, source in enumerate(cells)]
    if parameters is not None:
        codes.insert(0, new_code_cell(parameters, id="p", metadata={"tags": ["parameters"]}))
    path = folder / f"{name}.ipynb"
    nbformat.write(new_notebook(cells=[new_markdown_cell("# Title", id="t"), *codes], metadata=KERNEL), path)
    return path


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "a.py").write_text("x = 1\n")
    write(tmp_path / "notebooks", "00_a", "print('twice', 2 * n)")
    return tmp_path / "notebooks"


@pytest.fixture
def build(sources: Path) -> Callable[..., Built]:
    root = sources.parent

    def run(**options) -> Built:
        return build_notebooks(**{
            "output": root / "out", "sources": sources, "results": root / "results",
            "inputs": (root / "package",), "progress": False, **options,
        })  # fmt: skip

    return run


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("seed", "1e3", 1000),
        ("seed", "7", 7),
        ("seed", 7.0, 7),
        ("seed", "-2", -2),
        ("size", "none", None),
        ("size", "null", None),
        ("size", "12", 12),
        ("rate", "1e-3", 0.001),
        ("rate", 1, 1.0),
        ("fast", "no", False),
        ("fast", "True", True),
        ("model", "123", "123"),
        ("model", "no", "no"),
        ("codes", "en,de", ["en", "de"]),
        ("codes", "[en, no]", ["en", "no"]),
        ("codes", "['en', \"de\"]", ["en", "de"]),
        ("codes", "en", ["en"]),
        ("codes", ("en", "de"), ["en", "de"]),
        ("codes", "none", None),
        ("codes", "2, 3", [2, 3]),
        ("plain", "5", 5),
        ("plain", "1e2", 100),
    ],
)
def test_a_parameter_is_read_as_its_declared_type(name, text, value):
    found = typed(name, text, DECLARED[name])
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("name", "text", "needed"),
    [
        ("seed", "abc", "a whole number"),
        ("seed", "1.5", "a whole number"),
        ("seed", True, "a whole number"),
        ("seed", None, "a whole number"),
        ("seed", "none", "a whole number"),
        ("rate", "fast", "a number"),
        ("rate", "nan", "a number"),
        ("fast", "maybe", "true or false"),
        ("fast", 2, "true or false"),
        ("codes", ["en", False], "a list"),
        ("codes", 5, "a list"),
        ("model", 5, "a text"),
        ("plain", "x", "a whole number"),
    ],
)
def test_a_value_of_another_type_is_refused_before_anything_runs(name, text, needed):
    with pytest.raises(ValueError, match=rf"parameter '{name}' is .*: {needed}"):
        typed(name, text, DECLARED[name])


def test_the_build_refuses_it_by_name(build: Callable[..., Built]):
    with pytest.raises(BuildError, match="parameter 'n' is 'two': a whole number is needed"):
        build(parameters={"n": "two"})
    assert build(parameters={"n": "3"}).executed == ["00_a"]


def output_text(root: Path, name: str = "00_a") -> str:
    notebook = read_notebook(root / "out" / f"{name}.ipynb")
    return "".join(texts(output) for cell in notebook.cells for output in cell.get("outputs", []))


def test_it_executes_then_skips_what_is_unchanged(build: Callable[..., Built], tmp_path: Path):
    assert build().executed == ["00_a"]
    assert output_text(tmp_path) == "twice 4\n"
    again = build()
    assert (again.executed, again.skipped) == ([], ["00_a"])


def test_force_executes_again_to_the_same_bytes(build: Callable[..., Built], sources: Path, tmp_path: Path):
    write(sources, "00_a", "import sys", "print(n); print('e', file=sys.stderr); print(n)", "object()", "n")
    copy = tmp_path / "out" / "00_a.ipynb"
    build(parameters={"n": 5})
    before = copy.read_bytes()
    assert build(parameters={"n": 5}, force=True).executed == ["00_a"]
    assert copy.read_bytes() == before
    text = before.decode()
    assert "papermill" not in text
    assert 'execution"' not in text
    assert str(tmp_path) not in text


@pytest.mark.parametrize("what", ["cell", "prose", "package", "parameter", "copy"])
def test_it_is_stale_after_a_change(build: Callable[..., Built], sources: Path, tmp_path: Path, what: str):
    inputs = (tmp_path / "package",)
    where: dict[str, Any] = {
        "output": tmp_path / "out",
        "sources": sources,
        "results": tmp_path / "results",
        "inputs": inputs,
    }
    parameters: dict[str, Any] = {"n": 2}
    build(parameters=parameters)
    assert stale(parameters=parameters, **where) == []
    path = sources / "00_a.ipynb"
    if what == "cell":
        path.write_text(path.read_text().replace("twice", "double"))
    elif what == "prose":
        path.write_text(path.read_text().replace("# Title", "# Other"))
    elif what == "package":
        (tmp_path / "package" / "a.py").write_text("x = 2\n")
    elif what == "parameter":
        parameters = {"n": 3}
    else:
        (tmp_path / "out" / "00_a.ipynb").write_text("{")
    assert stale(parameters=parameters, **where) == ["00_a"]


def test_parameters_reach_the_notebooks_that_declare_them(build: Callable[..., Built], sources: Path, tmp_path: Path):
    write(sources, "01_b", "print('none')", parameters=None)
    build(parameters={"n": 21})
    assert output_text(tmp_path) == "twice 42\n"
    assert recorded(tmp_path / "out" / "00_a.ipynb")["parameters"] == {"n": 21}
    assert recorded(tmp_path / "out" / "01_b.ipynb")["parameters"] == {}


def test_unknown_parameter_is_refused_before_anything_runs(build: Callable[..., Built], tmp_path: Path):
    with pytest.raises(BuildError, match=r"unknown parameter 'm'.*: known are n"):
        build(parameters={"m": 1})
    assert not (tmp_path / "out").exists()


def test_only_selects_and_refuses_unknown_names(build: Callable[..., Built], sources: Path):
    write(sources, "01_b", "1")
    assert build(only=("01",)).executed == ["01_b"]
    with pytest.raises(BuildError, match="no notebook '07': there are 00_a, 01_b"):
        build(only=("07",))


def test_failure_is_named_and_the_others_are_kept(build: Callable[..., Built], sources: Path, tmp_path: Path):
    build()
    before = (tmp_path / "out" / "00_a.ipynb").read_bytes()
    write(sources, "00_a", "x = 1", "# a comment\nx / 0")
    write(sources, "01_b", "print('fine')")
    with pytest.raises(BuildError) as caught:
        build(parameters={"n": 3})
    told = str(caught.value)
    assert "1 of 2 executed notebooks failed" in told
    assert "00_a, cell 4 failed:" in told
    assert "| # a comment\n    | x / 0" in told
    assert "ZeroDivisionError: division by zero" in told
    assert "\x1b" not in told
    assert output_text(tmp_path, "01_b") == "fine\n"
    assert (tmp_path / "out" / "00_a.ipynb").read_bytes() == before
    assert sorted(path.name for path in (tmp_path / "out").glob("*.ipynb")) == ["00_a.ipynb", "01_b.ipynb"]
    failed = read_notebook(tmp_path / "_build" / "failed" / "00_a.ipynb")
    assert "ZeroDivisionError" in failed.cells[-1].outputs[0]["ename"], "what it did up to its failure is kept aside"


MEETS = """
import os, pathlib, time
here = pathlib.Path({folder!r})
(here / {own!r}).touch()
until = time.monotonic() + 60
while not (here / {other!r}).exists():
    assert time.monotonic() < until, "the other one never ran"
    time.sleep(0.05)
print(os.environ["MECHANISM_NOTEBOOK"], os.environ["OMP_NUM_THREADS"])
_ = pathlib.Path(os.environ["MECHANISM_RESULTS"], {own!r} + ".json").write_text("{{}}")
"""


def test_notebooks_run_side_by_side_each_with_its_threads_and_records(
    build: Callable[..., Built], sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    for own, other in (("00_a", "01_b"), ("01_b", "00_a")):
        write(sources, own, MEETS.format(folder=str(tmp_path), own=own, other=other))
    write(sources, "02_c", "1 / 0")
    with pytest.raises(BuildError, match="1 of 3 executed notebooks failed") as caught:
        build(side_by_side=2)
    assert caught.value.built is not None
    assert caught.value.built.executed == ["00_a", "01_b"]
    for name in ("00_a", "01_b"):
        assert output_text(tmp_path, name).split() == [name, str(max(1, cpu_count() // 2))]
        assert recorded(tmp_path / "out" / f"{name}.ipynb")["results"] == [f"{name}.json"]


def test_a_failed_notebook_leaves_no_records(build: Callable[..., Built], sources: Path, tmp_path: Path):
    write(sources, "00_a", WRITES, "raise SystemError('late')")
    with pytest.raises(BuildError, match="SystemError: late"):
        build()
    assert not (tmp_path / "results").exists()
    assert not (tmp_path / "out").exists()


def test_records_are_published_and_removed_with_their_notebook(
    build: Callable[..., Built], sources: Path, tmp_path: Path
):
    record = tmp_path / "results" / "R1.json"
    write(sources, "00_a", WRITES)
    build()
    assert record.read_text() == '{"n": 2}'
    record.unlink()
    assert build().executed == ["00_a"]
    assert record.exists()
    write(sources, "00_a", "n")
    build()
    assert not record.exists()


def test_data_that_a_page_loads_stand_beside_its_copy(build: Callable[..., Built], sources: Path, tmp_path: Path):
    write(sources, "00_a", WRITES.replace("R1.json", "00_a.js"))
    build()
    data = tmp_path / "out" / "00_a.js"
    assert data.read_text() == '{"n": 2}'
    assert not list((tmp_path / "results").rglob("*")), "they are no record"
    assert build().executed == []
    data.unlink()
    assert build().executed == ["00_a"]
    assert data.exists()


def test_a_record_that_says_the_same_is_not_published_again(build: Callable[..., Built], sources: Path, tmp_path: Path):
    def found(n: int) -> str:
        return WRITES.replace('{"n": n}', f'{{"n": {n}, "provenance": {{"mechanism": "this code"}}}}')

    record, told = tmp_path / "results" / "R1.json", '{"n": 2, "provenance": {"mechanism": "other code"}}'
    write(sources, "00_a", found(2))
    build()
    record.write_text(told)
    write(sources, "00_a", found(2) + "# once more")
    assert build().executed == ["00_a"]
    assert record.read_text() == told
    write(sources, "00_a", found(3))
    build()
    assert record.read_text() == told.replace("2", "3").replace("other", "this")


def test_a_cell_may_fail_on_purpose(build: Callable[..., Built], sources: Path, tmp_path: Path):
    path = write(sources, "00_a", "1 / 0", "print('after')")
    notebook = read_notebook(path)
    notebook.cells[2].metadata["tags"] = ["raises-exception"]
    nbformat.write(notebook, path)
    assert build().executed == ["00_a"]
    assert output_text(tmp_path) == "after\n"


def test_kernels_are_offline_and_know_their_notebook(
    build: Callable[..., Built], sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    names = "HF_HUB_OFFLINE", "TOKENIZERS_PARALLELISM", "MECHANISM_NOTEBOOK"
    write(sources, "00_a", f"import os\nprint(*map(os.environ.get, {names}))", parameters="model = ''")
    build()
    assert output_text(tmp_path) == "1 false 00_a\n"
    build(parameters={"model": "owner/name"})
    assert output_text(tmp_path) == "None false 00_a\n"
    assert "HF_HUB_OFFLINE" not in os.environ


def test_relative_paths_are_those_of_the_caller(
    build: Callable[..., Built], sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "en.txt").write_text("a\n")
    monkeypatch.chdir(tmp_path)
    write(sources, "00_a", "import os\nprint(os.listdir(data))", parameters="data = ''")
    build(parameters={"data": "./mine"})
    assert output_text(tmp_path) == "['en.txt']\n"
    write(sources, "00_a", "import os\nprint(os.listdir(data[0]))", parameters="data = []")
    build(parameters={"data": ["./mine"]})
    assert output_text(tmp_path) == "['en.txt']\n"
    (tmp_path / "mine" / "de.txt").write_text("b\n")
    assert build(parameters={"data": ["./mine"]}).executed == ["00_a"], "what a listed folder holds counts"


def test_no_notebooks_is_an_error(build: Callable[..., Built], tmp_path: Path):
    with pytest.raises(BuildError, match="no notebooks in empty/"):
        build(sources=tmp_path / "empty")


def test_broken_notebook_is_named(build: Callable[..., Built], sources: Path):
    (sources / "00_a.ipynb").write_text("not json")
    with pytest.raises(BuildError, match=r"00_a\.ipynb is not a notebook"):
        build()


def test_normalise_does_not_stop_at_long_texts_without_a_space():
    cell = new_code_cell("x", id="a", outputs=[new_output("display_data", data={"text/html": "0" * 2_000_000})])
    begun = time.monotonic()
    normalise(new_notebook(cells=[cell]))
    assert time.monotonic() - begun < 5, "the pattern of a cell's path goes through it once from every place"


def test_normalise_takes_out_what_changes_from_run_to_run():
    cell = new_code_cell("x", id="a", metadata={"papermill": {"duration": 1.0}, "execution": {"t": "1"}, "tags": ["k"]})
    cell.outputs = [
        new_output("stream", name="stdout", text="a"),
        new_output("stream", name="stdout", text="b /tmp/ipykernel_12/345.py:1\n"),
        new_output("display_data", data={"text/plain": "<Thing at 0x7f00deadbeef>"}),
    ]
    injected = new_code_cell("n = 1", id="random", metadata={"tags": ["injected-parameters"]})
    metadata = {**KERNEL, "language_info": {"name": "python", "version": "3.11.7"}, "papermill": {"duration": 2}}
    found = normalise(new_notebook(cells=[injected, cell], metadata=metadata))
    assert found.metadata == {**KERNEL, "language_info": {"name": "python"}}
    assert found.cells[0].id == "injected-parameters"
    assert found.cells[1].metadata == {"tags": ["k"]}
    assert [output.get("text") or output.data for output in found.cells[1].outputs] == [
        "ab <cell>:1\n",
        {"text/plain": "<Thing at 0x0>"},
    ]
    assert normalise(found) == found


def test_an_empty_remark_is_dropped():
    said = [{"text/markdown": text, "text/plain": "<Markdown object>"} for text in ("", "All made.")]
    cell = new_code_cell("x", outputs=[new_output("display_data", data=data) for data in said])
    assert [output.data for output in normalise(new_notebook(cells=[cell])).cells[0].outputs] == said[1:]


def test_stamp_leaves_out_the_injected_cell(sources: Path):
    notebook = read_notebook(sources / "00_a.ipynb")
    first = stamp(notebook, {"n": 1}, "inputs")
    notebook.cells.insert(2, new_code_cell("n = 1", metadata={"tags": ["injected-parameters"]}))
    assert stamp(notebook, {"n": 1}, "inputs") == first
    assert stamp(notebook, {"n": 1}, "other inputs") != first
