"""The package as it is installed from a wheel, without the repository: what works, and what says that it does not."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder with the files of the wheel, and with a tiny model and text of a user's own."""
    place = tmp_path_factory.mktemp("installed")
    source = place / "source"
    for name in ("mechanism", "pyproject.toml", "README.md", "LICENSE"):
        path = ROOT / name
        shutil.copytree(path, source / name) if path.is_dir() else _copy(path, source)
    words = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(place),
        ".",
    ]
    subprocess.run(words, cwd=source, check=True, capture_output=True)
    (wheel,) = place.glob("*.whl")
    shutil.unpack_archive(wheel, place / "site", "zip")
    shutil.copytree(ROOT / "data" / "models" / "tiny", place / "moe")
    (place / "texts").mkdir()
    for code, lines in {
        "en": ("Open the file.", "Close the window."),
        "de": ("Datei öffnen.", "Fenster schließen."),
    }.items():
        (place / "texts" / f"{code}.txt").write_text("\n".join(lines * 6) + "\n", "utf-8")
    return place


def _copy(path: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(path, folder)


def run(place: Path, code: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(place / "site"), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=place, env=environment, capture_output=True, text=True, check=False
    )


def test_a_user_watches_checks_and_sweeps_without_the_repository(installed: Path):
    done = run(
        installed,
        """
import mechanism as me
assert "site" in me.__file__
lm = me.load("moe")
assert all(one.status != "failed" for one in me.check(lm))
with me.attach(lm, [me.Forbid(me.pairs(1, [0]))]) as trace:
    lm("Datei öffnen.")
print(trace.changes()["changed"].max())
print(me.sweep(lm, data="texts", modes=["zero"], max_segments=4).drivers(2))
""",
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "zero" in done.stdout


def test_the_explorer_comes_with_its_script_and_style(installed: Path):
    done = run(installed, "from mechanism.report.explorer import explorer_html; print(len(explorer_html('data.js')))")
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout) > 10_000


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("from mechanism.report.claims import load_claims; load_claims()", "no claims file"),
        ("from mechanism.corpus.library import load; load('tech')", "no corpus manifest"),
        ("import mechanism as me; me.load('embedded')", "no model at 'embedded'"),
    ],
)
def test_what_needs_the_repository_says_so_in_one_sentence(installed: Path, code: str, told: str):
    done = run(installed, code)
    last = done.stderr.strip().splitlines()[-1]
    assert told in last
    assert "in the repository" in last
