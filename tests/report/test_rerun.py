"""The report on another model: six families from disk, a folder of its own, and everything that can go wrong."""

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
import transformers
from matplotlib import pyplot as plt

from mechanism.corpus.library import DATA, committed
from mechanism.corpus.store import CorpusError
from mechanism.corpus.tokenizer import load_tokenizer
from mechanism.models import load as models
from mechanism.models.load import ModelError, load_config, load_model, model_hash, pinned, require_memory
from mechanism.models.memory import footprint, lacking
from mechanism.nn.lm import LMConfig
from mechanism.report import build
from mechanism.report import rerun as rerun_module
from mechanism.report.book import external_loads
from mechanism.report.build import BuildError
from mechanism.report.claims import load_claims
from mechanism.report.compare import compare_html, compare_markdown, compare_rows
from mechanism.report.compare import warnings as differences
from mechanism.report.differences import differences as between_runs
from mechanism.report.explorer import read_data
from mechanism.report.files import NOTEBOOKS, RESULTS
from mechanism.report.judge import STANDING
from mechanism.report.rerun import rerun
from mechanism.report.rerun_plan import Rerun, plan
from mechanism.report.run_folder import RerunError, load_runs
from mechanism.report.stamp import read_notebook
from mechanism.report.verdicts import Verdict
from mechanism.study.r_multilingual import steering
from mechanism.study.r_multilingual.steering_plan import SteeringConfig
from mechanism.trace import ContractError, RouterError, checks, find_sites
from mechanism.trace.attachable import provenance
from tests.notebooks import cells
from tests.notebooks.cells import save_model
from tests.report.test_build import write
from tests.study import planted

FAMILIES = ("mixtral", "olmoe", "gpt_oss", "deepseek_v3", "ernie4_5_moe", "qwen3_moe")
CODES = ("en", "de")
COMMIT = "0123456789abcdef0123456789abcdef01234567"
BRIEF = partial(SteeringConfig, (0.05,), strengths=(0.5,), draws=2, doses=(-0.5, 0.5), widths=(4,))


def save(folder: Path, family: str, **more: Any) -> Path:
    return save_model(family, folder, load_tokenizer(DATA / "tokenizer"), **more)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Callable[[str], str]:
    """Folder of a family's tiny checkpoint, saved once."""
    made: dict[str, str] = {}

    def get(family: str) -> str:
        if family not in made:
            made[family] = str(save(tmp_path_factory.mktemp("models") / family, family))
        return made[family]

    return get


@pytest.fixture(scope="module")
def parallel(tmp_path_factory) -> str:
    """A reader's folder of parallel text."""
    corpus = committed("udhr")
    rows = sorted(corpus.parallel("test", CODES), key=lambda i: len(corpus.columns["en"][i]))[:12]
    folder = tmp_path_factory.mktemp("own")
    for code in CODES:
        lines = [text.replace("\n", " ") for text in corpus.texts(code, rows)]
        (folder / f"{code}.txt").write_text("\n".join(lines) + "\n", "utf-8")
    return str(folder)


@pytest.fixture(scope="module")
def domains(tmp_path_factory) -> tuple[str, ...]:
    """A reader's folder per domain, with dev and test documents."""
    return tuple(planted.folders(tmp_path_factory.mktemp("domains")))


@pytest.fixture
def here(monkeypatch) -> Iterator[list[str]]:
    """Notebooks run in this process, and briefly; yields the names of those that ran."""
    ran: list[str] = []

    def execute(source: Path, parameters: dict, progress: bool) -> Any:
        ran.append(source.stem)
        cells.execute(source, **parameters)
        return read_notebook(source)

    monkeypatch.setattr(build, "execute", execute)
    monkeypatch.setattr(steering, "SteeringConfig", BRIEF)
    monkeypatch.setattr(steering, "TASKS", ("word problems",))
    yield ran
    plt.close("all")


@pytest.fixture
def pages(tmp_path, monkeypatch) -> Callable[..., dict]:
    """A run over throw-away notebooks on the committed tiny model, which is not loaded."""
    monkeypatch.setattr(rerun_module, "_prove", lambda *given: {})
    shown = "import os\nprint(model, os.environ['MECHANISM_RUN'], os.environ['MECHANISM_STUDIES'])"
    write(tmp_path / "notebooks", "10_first", shown, parameters="model = ''")
    (tmp_path / "package").mkdir()

    def run(**options: Any) -> dict:
        asked = Rerun(**{"model": "tiny", "out": tmp_path / "out", **options})
        return rerun(asked, tmp_path / "notebooks", (tmp_path / "package",), progress=False)

    return run


def summary(folder: Path) -> dict:
    return json.loads((folder / "run.json").read_text("utf-8"))


@pytest.mark.parametrize("family", FAMILIES)
def test_six_families_from_disk(family, checkpoint, parallel, here, tmp_path):
    model = checkpoint(family)
    found = rerun(Rerun(model, tmp_path / "out", parallel=parallel, notebooks=("03",)), progress=False)
    assert here == ["03_bring_your_own_model"]
    assert found["notebooks"][here[0]]["parameters"]["data"] == [parallel]
    assert (found["state"], found["model"]["hash"]) == ("complete", model_hash(model))
    loaded = load_model(model, "cpu")[0]
    kept_buffers = loaded.state_dict().keys() - dict(loaded.named_parameters()).keys()
    held = [*loaded.parameters(), *(loaded.state_dict()[name] for name in kept_buffers)]
    assert found["memory"]["parameters"] == sum(tensor.numel() for tensor in held)
    assert "zero_edits_identical" in found["contracts"]
    assert found["environment"]["model weights"].startswith("sha256")
    kept = summary(tmp_path / "out")
    assert {key: kept[key] for key in ("state", "contracts", "skipped")} == {
        key: found[key] for key in ("state", "contracts", "skipped")
    }


def test_every_page_that_applies_on_one_model(checkpoint, parallel, domains, here, tmp_path, monkeypatch):
    monkeypatch.setattr(steering, "TASKS", ("word problems",))
    before = {path.name: path.stat().st_mtime_ns for path in RESULTS.glob("*.json")}
    out, names = tmp_path / "a", ("03", "10", "11", "20")
    asked = Rerun(checkpoint("mixtral"), out, parallel=parallel, domains=domains, notebooks=names, max_segments=10)
    few = replace(asked, notebooks=("22",), max_segments=2)
    rerun(asked, progress=False)
    found = rerun(few, progress=False)
    assert [name[:2] for name in here] == [*names, "22"]
    assert found["notebooks"]["20_domain_experts"]["claims"] == ["D1", "D8"]
    records = {path.stem: json.loads(path.read_text()) for path in (out / "results").glob("*.json")}
    assert {"R6", "D1", "D5", "D8"} <= set(records)
    assert {record["standing"] for record in records.values()} == {STANDING}
    undecided = {path.stem for path in (out / "results" / "undecided").glob("*.json")}
    assert {"R1", "R12"} <= undecided, "so few languages give R1 no interval"
    for claim, told in (("R10", "no language is left"), ("R12", "siblings of the report's own model")):
        reason = json.loads((out / "results" / "undecided" / f"{claim}.json").read_text("utf-8"))["reason"]
        assert told in reason
    assert {path.name: path.stat().st_mtime_ns for path in RESULTS.glob("*.json")} == before

    run = load_runs([out])[0]
    assert {"R6", "D1", "D5"} <= {claim for claim, kept in run.units.items() if "units" in kept}
    assert "turns of a clock" in run.units["D8"]["reason"]
    tested = [row for row in between_runs([run, replace(run, label="again")]) if "reason" not in row]
    assert {"R6", "D1", "D5"} <= {row["id"] for row in tested}
    assert {(row["difference"], row["holm"]) for row in tested} == {(0.0, 1.0)}, "it is the same run"
    for name in ("10_routing_by_language", "20_domain_experts"):
        row, done = found["forecast"][name], found["notebooks"][name]["work"]
        assert row["seconds"] > 0
        assert done["studies"]["tokens"] == pytest.approx(row["tokens"], rel=0.25)

    monkeypatch.setattr(rerun_module, "load_model", None)
    again = rerun(asked, progress=False)
    assert len(here) == 5, "nothing changed, so nothing runs and the model is not loaded"
    assert {again["notebooks"][name]["status"] for name in here if name[:2] in names} == {"unchanged"}
    assert all(again["notebooks"][name]["seconds"] == found["notebooks"][name]["seconds"] for name in here)


def test_a_run_has_the_explorer_of_its_own_model_and_texts(checkpoint, parallel, here, tmp_path):
    model, out = checkpoint("deepseek_v3"), tmp_path / "a"
    rerun(Rerun(model, out, parallel=parallel, notebooks=("04",), max_segments=2), progress=False)
    assert here == ["04_token_explorer"]
    data = read_data(out / "notebooks" / "04_token_explorer.js")
    assert data["layers"] == [site.layer for site in find_sites(load_model(model, "cpu")[0])]
    assert {code: len(own) for code, own in data["texts"].items()} == {"en": 2, "de": 2}
    assert 'data-src="notebooks/04_token_explorer.js"' in (out / "explorer.html").read_text("utf-8")
    assert 'href="explorer.html"' in (out / "index.html").read_text("utf-8")
    assert list(external_loads(out)) == []


def test_every_notebook_is_run_or_skipped_for_a_reason():
    chosen = plan(Rerun("m", Path("o"), seed=3, profile="full"), "m")
    names = {path.stem for path in NOTEBOOKS.glob("*.ipynb")}
    assert set(chosen.pages) | set(chosen.skipped) == names
    assert {name[:2] for name in chosen.pages} >= {"03", "10", "11", "20", "22"}
    assert all(given["model"] == "m" and given["seed"] == 3 for given in chosen.pages.values())
    assert chosen.pages["10_routing_by_language"]["profile"] == "full"
    assert "profile" not in chosen.pages["03_bring_your_own_model"]
    assert {name[:2] for name in chosen.skipped} >= {"00", "01", "30", "40", "41"}
    assert all(chosen.skipped.values())
    assert "grid mh_moe" in chosen.skipped["30_multi_head"]


def test_texts_reach_the_pages_that_they_are_for(parallel, domains, monkeypatch):
    monkeypatch.chdir(Path(parallel).parent)
    asked = Rerun("m", Path("o"), parallel=Path(parallel).name, languages=("en", "xx"))
    given = plan(asked, "m").pages
    assert given["11_steering"]["data"] == [parallel]
    assert given["11_steering"]["languages"] == ["en", "xx"]
    assert "data" not in given["20_domain_experts"]
    assert "languages" not in given["20_domain_experts"], "the committed domains have no such language"
    given = plan(replace(asked, domains=("code", *domains)), "m").pages
    assert given["22_reweighting"]["data"] == ["code", *domains]
    assert given["22_reweighting"]["languages"] == ["en", "xx"]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"profile": "large"}, "no profile 'large': use auto, small, full"),
        ({"notebooks": ("99",)}, "no notebook '99': there are 00_overview"),
        ({"notebooks": ("30",)}, "30_multi_head takes no model: it needs models trained for it"),
        ({"dtype": "float33"}, "unknown dtype 'float33'"),
        ({"parallel": "./none"}, "no data './none'"),
        ({"domains": ("code", "./none")}, "no data './none'"),
        ({"device": "tpux"}, "unknown device 'tpux'"),
        ({"model": "./nothing"}, "no model at './nothing'"),
        ({"model": "nobody/nothing@main"}, "cannot get 'nobody/nothing@main' from the hub"),
    ],
)
def test_what_is_wrong_with_the_question_is_one_sentence(change, match, tmp_path):
    with pytest.raises((BuildError, ModelError, CorpusError), match=match) as caught:
        rerun(Rerun(**{"model": "tiny", "out": tmp_path / "out", **change}), progress=False)
    assert "\n" not in str(caught.value)


def test_folders_that_cannot_hold_the_run(pages, tmp_path, checkpoint):
    (tmp_path / "file").write_text("")
    with pytest.raises(RerunError, match=r"cannot write to .*file/out \(Not a directory\): name another folder"):
        pages(out=tmp_path / "file" / "out")
    with pytest.raises(RerunError, match="is not empty and holds no run"):
        pages(out=tmp_path)
    pages()
    with pytest.raises(RerunError, match=r"holds a run of tiny \(\w+\), and this is .*mixtral"):
        pages(model=checkpoint("mixtral"))
    (tmp_path / "out" / "run.json").write_text("{}")
    with pytest.raises(RerunError, match="is not the summary of a run"):
        pages()


def test_a_dense_model(tmp_path):
    dense = LMConfig(hidden=32, layers=1, heads=1, head_dim=32, experts=0, expert_width=16)
    models.save_model(dense.build(), load_tokenizer(DATA / "tokenizer"), tmp_path / "dense", {})
    with pytest.raises(ModelError, match=r"dense is a dense model \(qwen3\)"):
        rerun(Rerun(str(tmp_path / "dense"), tmp_path / "out"), progress=False)
    kept = summary(tmp_path / "out")
    assert kept["state"] == "failed"
    assert "is a dense model" in kept["reason"]
    assert (tmp_path / "out" / "index.html").exists()


def test_a_family_that_cannot_be_observed(tmp_path):
    with pytest.raises(RouterError, match="modules that look like experts but no router"):
        rerun(Rerun(str(save(tmp_path / "doge", "doge")), tmp_path / "out"), progress=False)


def test_an_architecture_that_transformers_does_not_know(tmp_path):
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "config.json").write_text('{"model_type": "unheard_of"}')
    with pytest.raises(ModelError, match=r"new cannot be loaded: .*model type `unheard_of`"):
        rerun(Rerun(str(tmp_path / "new"), tmp_path / "out"), progress=False)


def test_a_broken_contract_is_named(tmp_path, monkeypatch):
    def weights_follow_logits(probe: Any) -> None:
        raise ContractError("layers.1: neither weights nor selection depend on the captured logits")

    monkeypatch.setattr(checks, "QUICK", (weights_follow_logits,))
    with pytest.raises(ContractError, match=r"breaks weights_follow_logits: .*layers\.1: neither weights nor"):
        rerun(Rerun("tiny", tmp_path / "out"), progress=False)
    assert "weights_follow_logits" in summary(tmp_path / "out")["reason"]


def test_too_little_memory_is_told_in_numbers_before_loading(tmp_path, monkeypatch):
    monkeypatch.setattr(models, "free_memory", lambda device: 300_000_000)
    monkeypatch.setattr(rerun_module, "load_model", None)
    wanted = r"tiny does not fit: it needs about 1\.\d GB \([\d,]+ parameters of 4 bytes .*, and 0\.3 GB of host memory"
    with pytest.raises(ModelError, match=wanted):
        rerun(Rerun("tiny", tmp_path / "out"), progress=False)


def test_memory_for_a_gpu_counts_what_passes_through_the_host():
    config = load_config("tiny")
    found = footprint(config, torch.bfloat16)
    assert (
        found.parameters
        == require_memory("tiny").parameters
        == sum(p.numel() for p in load_model("tiny", "cpu")[0].parameters())
    )
    room = {"cuda": found.needed, "cpu": found.needed}
    assert lacking(found, "cuda", lambda device: room[device]) == ""
    assert "on cuda is free" not in lacking(
        found, "cuda", lambda device: room[device] - (device == "cpu") * room["cpu"]
    )
    assert "0.0 GB on cuda is free" in lacking(found, "cuda", lambda device: room[device] * (device == "cpu"))
    assert lacking(found, "balanced", lambda device: found.needed) == ""


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA"), MemoryError(), RuntimeError("can't allocate memory")]
)
def test_out_of_memory_while_loading(error, monkeypatch):
    def fail(*args: Any, **kwargs: Any) -> None:
        raise error

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", fail)
    with pytest.raises(ModelError, match=r"out of memory while tiny was loaded \([\d.]+ GB of host memory is free\)"):
        load_model("tiny", "cpu")


def test_a_page_that_fails_and_one_that_runs_out_of_memory_leave_the_others(pages, tmp_path):
    write(tmp_path / "notebooks", "20_second", "raise MemoryError('no room')", parameters="model = ''")
    write(tmp_path / "notebooks", "22_third", "import os\nos._exit(1)", parameters="model = ''")
    with pytest.raises(RerunError, match="2 of 3 notebooks failed") as caught:
        pages()
    told = str(caught.value)
    assert "20_second, cell 3: MemoryError: no room; out of memory: lower --max-segments" in told
    assert "22_third, the kernel died, most likely out of memory" in told
    assert "\n" not in told
    (copy,) = (tmp_path / "out" / "notebooks").glob("*.ipynb")
    assert f"tiny tiny {tmp_path / 'out' / 'studies'}" in copy.read_text("utf-8"), "kernels know whose run it is"
    kept = summary(tmp_path / "out")
    assert {name: page["status"] for name, page in kept["notebooks"].items()} == {
        "10_first": "executed",
        "20_second": "failed",
        "22_third": "failed",
    }
    assert kept["state"] == "failed"


def test_an_interrupted_run_goes_on_where_it_stopped(pages, tmp_path):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job of a shell ignores it
    stop = "import os, signal, time\nos.kill(os.getppid(), signal.SIGINT)\ntime.sleep(30)"
    write(tmp_path / "notebooks", "20_second", stop, parameters="model = ''")
    with pytest.raises(KeyboardInterrupt):
        pages()
    kept = summary(tmp_path / "out")
    assert (kept["state"], list(kept["notebooks"])) == ("interrupted", ["10_first"])
    write(tmp_path / "notebooks", "20_second", "1", parameters="model = ''")
    found = pages()
    assert {name: page["status"] for name, page in found["notebooks"].items()} == {
        "10_first": "unchanged",
        "20_second": "executed",
    }
    assert (found["state"], "reason" in found) == ("complete", False)


def test_a_full_disk_is_one_sentence(pages, monkeypatch):
    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(build, "write_atomic", full)
    with pytest.raises(RerunError, match=r"cannot write 10_first to .*\(No space left on device\)"):
        pages()


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Iterator[None]:
    """A hub on this machine that answers every request with the error that the model's name asks for."""

    class Answer(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            code = self.path.split("/")[2]
            self.send_response({"GatedRepo": 403, "RepoNotFound": 401}.get(code, 404))
            self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_HEAD

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}"
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    yield
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("spec", "match"),
    [
        ("owner/GatedRepo", "'owner/GatedRepo' is gated: accept its conditions"),
        ("owner/RevisionNotFound@v9", "'owner/RevisionNotFound' has no revision 'v9'"),
        ("owner/RepoNotFound", "the hub has no model 'owner/RepoNotFound', or it is private"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_what_a_hub_refuses_is_one_sentence(hub, spec, match, tmp_path):
    with pytest.raises(ModelError, match=match) as caught:
        rerun(Rerun(spec, tmp_path / "out"), progress=False)
    assert "\n" not in str(caught.value)


def test_the_commit_of_a_model_from_a_hub_is_pinned_and_kept(checkpoint, parallel, here, tmp_path, monkeypatch):
    """From the cache of an earlier download, since tests have no network."""
    place = tmp_path / "cache" / "models--owner--name"
    (place / "snapshots").mkdir(parents=True)
    (place / "snapshots" / COMMIT).symlink_to(checkpoint("olmoe"))
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    assert pinned("owner/name") == f"owner/name@{COMMIT}"
    assert provenance(load_model("owner/name", "cpu")[0])["revision"] == COMMIT
    asked = Rerun("owner/name", tmp_path / "out", parallel=parallel, notebooks=("03",))
    found = rerun(asked, progress=False)
    assert found["model"]["id"] == f"owner/name@{COMMIT}"
    assert found["notebooks"]["03_bring_your_own_model"]["parameters"]["model"] == f"owner/name@{COMMIT}"
    (place / "refs" / "main").write_text("f" * 40)
    assert rerun(asked, progress=False)["model"]["id"] == f"owner/name@{COMMIT}", "the run keeps its commit"
    assert len(here) == 1


def test_layers_over_several_devices_need_accelerate(monkeypatch):
    monkeypatch.setattr(models.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match="needs accelerate: pip install"):
        models.parse_device("balanced")


def test_routing_is_observed_under_the_hooks_that_move_tensors_between_devices():
    accelerate = pytest.importorskip("accelerate", reason="the extra hub is not installed")
    model, _ = load_model("tiny", "balanced")
    layers = {f"model.layers.{i}": "cpu" for i in range(model.config.num_hidden_layers)}
    places = dict.fromkeys(("model.embed_tokens", "model.norm", "model.rotary_emb", "lm_head"), "cpu") | layers
    accelerate.dispatch_model(model, places, main_device="cpu", force_hooks=True)
    assert hasattr(model.model.layers[0], "_hf_hook")
    failed = [result for result in checks.check(model) if result.status == "failed"]
    assert not failed


@pytest.fixture
def two_runs(pages, tmp_path) -> list[Path]:
    """A run that judged R2 and left R12 undecided, and one of another model that found something else."""
    told = """
    from mechanism.measure.evidence import Evidence
    from mechanism.report.judge import Judge
    from mechanism.report.provenance import Provenance
    judge = Judge(model, Provenance({}, {}))
    judge("R2", Evidence(estimate, -0.8, -0.3, 18, -0.1, 0.01))
    judge("R12", None, reason="no control")
    """
    cell = "\n".join(line.strip() for line in told.splitlines())
    write(tmp_path / "notebooks", "10_first", f"estimate = -0.625\n{cell}", parameters="model = ''\nseed = 0")
    pages()
    write(tmp_path / "notebooks", "10_first", f"estimate = -0.3125\n{cell}", parameters="model = ''\nseed = 0")
    write(tmp_path / "notebooks", "20_second", "1 / 0", parameters="model = ''")
    with pytest.raises(RerunError, match="1 of 2 notebooks failed"):
        pages(out=tmp_path / "other", seed=3)
    return [tmp_path / "out", tmp_path / "other"]


def test_claims_by_models_on_one_page(two_runs, tmp_path):
    runs = load_runs(two_runs)
    r2, r12 = compare_rows(runs)
    assert (r2["id"], r12["id"]) == ("R2", "R12")
    cells = [r2["models"][run.label] for run in runs]
    assert [(c["estimate"], c["interval"], c["n"], c["p"]) for c in cells] == [
        (-0.625, [-0.8, -0.3], 18, 0.01),
        (-0.3125, [-0.8, -0.3], 18, 0.01),
    ]
    assert [c["label"] for c in cells] == [
        load_claims()["R2"].label(Verdict(json.loads((folder / "results" / "R2.json").read_text())["verdict"]))
        for folder in two_runs
    ]
    assert r12["models"][runs[0].label] == {"verdict": None, "label": "undecided", "note": "no control"}
    assert "The runs differ in seed." in differences(runs)
    assert f"The run of {runs[1].label} is not complete: failed." in differences(runs)
    page = compare_html(runs)
    assert "-0.312 [-0.8, -0.3] correlation, n = 18, p = 0.01" in page
    assert "failed, " in page
    assert "ZeroDivisionError" in page
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index.html").write_text(page, "utf-8")
    assert not list(external_loads(tmp_path / "site"))
    assert compare_markdown(runs).startswith(f"| Claim | {runs[0].label} | {runs[1].label} |\n")


def test_nothing_to_compare(tmp_path):
    with pytest.raises(RerunError, match=r"no run in .*: it has no run\.json"):
        load_runs([tmp_path])
    with pytest.raises(RerunError, match="name the folders"):
        load_runs([])


def test_the_report_itself_can_stand_beside_a_run(pages, tmp_path):
    pages()
    runs = load_runs(["report", tmp_path / "out", os.path.relpath(tmp_path / "out")])
    assert runs[0].label == "the report"
    assert len({run.label for run in runs}) == 3
    assert compare_rows(runs), "the committed records are there"
