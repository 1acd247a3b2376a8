"""The front door: every expected failure is one sentence on standard error and a non-zero exit."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mechanism import cli
from mechanism.cli import console


def mechanism(*arguments, **more):
    command = [sys.executable, "-m", "mechanism", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, **more)


@pytest.fixture
def ask(monkeypatch, capsys):
    """Runs a command in this process; what it prints on standard output and standard error."""

    def run(*arguments: str) -> tuple[str, str]:
        monkeypatch.setattr(sys, "argv", ["mechanism", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        told = capsys.readouterr()
        assert ended.value.code in (None, 0), told.err
        return told.out, told.err

    return run


def test_help_names_every_command():
    shown = mechanism("--help").stdout
    commands = "train evaluate claims notebooks book pdf corpus bench contracts sweep run compare lm-eval lm-eval-tasks"
    for command in commands.split():
        assert command in shown


def test_a_table_that_is_too_wide_cuts_nothing_off(capsys, monkeypatch):
    monkeypatch.setattr(console, "out", console.Console(width=40))
    console.print_table([{f"column {i}": f"{i}.23456" for i in range(6)}], "wide")
    rows = [line.strip("│").split("│") for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    assert ["".join(part.strip() for part in cell) for cell in zip(*rows, strict=True)] == [
        f"{i}.23456" for i in range(6)
    ]


@pytest.mark.parametrize(
    "error", [RuntimeError("three\nlines\nlong"), AttributeError("x"), OSError(28, "No space left")]
)
def test_a_failure_that_nobody_foresaw_is_a_sentence_too(error, monkeypatch, capsys):
    def fail():
        raise error

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    told = capsys.readouterr().err.strip()
    assert (ended.value.code, told.count("\n")) == (70, 0)
    path = re.search(r"the full report is in (\S+),", told)
    assert path
    report = Path(path[1])
    assert f"{type(error).__name__}: " in report.read_text("utf-8")
    assert "Traceback" not in told
    report.unlink()


def test_claims_as_json(ask):
    claims = json.loads(ask("claims", "--json")[0])
    assert len(claims) == 45
    keys = {"id", "source", "criterion", "verdict", "estimate", "interval", "n", "null", "notebook"}
    assert all(keys <= set(claim) for claim in claims)


def test_calculate_as_json(ask):
    options = ("--languages", "3", "--layers", "2", "--hidden", "64", "--experts", "4", "--json")
    rows = {row["model"]: row for row in json.loads(ask("calculate", *options)[0])}
    assert rows["per language"]["total"] == 3 * rows["dense"]["total"]


def test_corpus_verify(ask):
    assert "files match the manifest" in ask("corpus", "verify")[0]


def test_evaluate_as_json(ask):
    done, _ = ask("evaluate", "tiny", "--languages", "en", "--data", "udhr", "--max-segments", "4", "--json")
    assert {row["task"] for row in json.loads(done)} >= {"bits_per_byte", "word_problem"}


def test_contracts_as_json(ask):
    results = json.loads(ask("contracts", "tiny", "--json")[0])
    assert len(results) > 15
    assert {r["status"] for r in results} == {"passed"}


def test_sweep_as_json(ask, tmp_path):
    asked = ("--data", "tech", "--languages", "en", "--max-segments", "2", "--max-tokens", "20", "--modes", "zero")
    done, told = ask("sweep", "tiny", *asked, "--to", str(tmp_path / "sweep.nc"), "--json")
    (first, *_) = json.loads(done)
    assert {"layer", "expert", "rate", "zero", "own", "loss", "share", "included"} == set(first)
    assert first["zero"] > 0
    assert (tmp_path / "sweep.nc").exists()
    assert "restarted after the ablated layer: zero" in told


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["contracts"], "name a model, or use --all"),
        (["contracts", "tiny", "--all"], "not both"),
        (["contracts", "tiny", "--dtype", "float33"], "unknown dtype"),
        (["evaluate", "./nothing"], "no model at './nothing'"),
        (["evaluate", "nobody/nothing"], "cannot get 'nobody/nothing' from the hub"),
        (["evaluate", "tiny", "--languages", "xx"], "unknown language 'xx'"),
        (["evaluate", "tiny", "--data", "/nowhere"], "no data '/nowhere'"),
        (["calculate", "--top-k", "65"], "top_k is 65; it cannot exceed the 64 experts"),
        (["sweep", "tiny", "--engine", "spark"], "no engine 'spark'"),
        (["sweep", "tiny", "--modes", "nought"], "modes of ablation are some of zero reroute mean"),
        (["train", "--config", "nothing"], "no training configuration at"),
        (["train"], "name a run with --config or a grid with --grid; not both"),
        (["train", "--config", "tiny", "--runs", "3"], "--runs and --status belong to --grid"),
        (["train", "--grid", "nothing", "--status"], "no grid at"),
        (["train", "--grid", "mh_moe", "--stage"], "a grid has no --branch, --export or --stage"),
        (["train", "--config", "tiny", "--stage", "--steps", "3"], "--stage does not train: leave out --steps"),
        (["corpus", "shares", "--config", "nothing"], "no training configuration at"),
        (["corpus", "build", "nothing"], "unknown corpus ['nothing']"),
        (["notebooks", "-p", "modle=tiny"], "modle"),
        (["notebooks", "--only", "99"], "99"),
        (["run", "--model", "./nothing", "--out", "/dev/null/x"], "cannot write to /dev/null/x (Not a directory)"),
        (["compare", "/nowhere"], "no run in /nowhere"),
        (["lm-eval-tasks", "/dev/null/x", "--data", "/nowhere"], "no data '/nowhere'"),
    ],
)
def test_expected_failures_are_one_sentence(arguments, sentence, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["mechanism", *arguments])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    told = capsys.readouterr().err
    assert stop.value.code not in (None, 0, 70), told
    assert sentence in told.replace("\n", " ")
    assert "Traceback" not in told


def test_an_expected_failure_ends_the_process_with_its_sentence():
    done = mechanism("evaluate", "./nothing")
    assert done.returncode == 1
    assert "no model at './nothing'" in done.stderr.replace("\n", " ")
    assert "Traceback" not in done.stderr
