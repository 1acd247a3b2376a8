"""Work that is counted beforehand is the work that is done; its time is told, and kept honest while it runs."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from mechanism.corpus.tasks import ChoiceItem
from mechanism.models import choices, work
from mechanism.models.load import load_model
from mechanism.models.segments import segment_pass
from mechanism.models.work import Meter, Work, padded
from mechanism.nn.lm import LMConfig
from mechanism.report import forecast as module
from mechanism.report.forecast import EARLY, PAGES, Watch, forecast, hours, told, watching
from mechanism.report.rerun import look_ahead
from mechanism.report.rerun_plan import Rerun
from mechanism.study.d_domains import domain_experts, reweighting, sweep, swept_text
from mechanism.study.d_domains.domain_text import SweepConfig
from mechanism.study.r_multilingual import routing, steering
from mechanism.trace.restart import restarted
from tests.report.test_build import write
from tests.study import planted

Lm = tuple[PreTrainedModel, PreTrainedTokenizerBase]
CHAPTER: dict[str, Any] = {"data": ("udhr",), "languages": ("en", "de", "el"), "max_segments": 30, "seed": 0}


@pytest.fixture(scope="module")
def lm() -> Lm:
    made = load_model("tiny", "cpu")
    segment_pass(*made, ["a"])  # what is proven when a model is first attached to is not of a page
    return made


def total(works: list[Work]) -> float:
    return float(sum(one.tokens for one in works))


def test_a_meter_counts_what_layers_see_and_no_layer_that_is_left_out(lm: Lm):
    model, layers = lm[0], lm[0].config.num_hidden_layers
    ids = torch.arange(12).view(2, 6)
    with Meter(model) as meter, torch.no_grad():
        below = model.model.layers[0](model.model.embed_tokens(ids), position_embeddings=model.model.rotary_emb(
            model.model.embed_tokens(ids), torch.arange(6)[None]))  # fmt: skip
        assert meter.done == 12
        with restarted(model, 1, below):
            model(input_ids=ids)
        assert meter.done == 12 * layers
    with torch.no_grad():
        model(input_ids=ids)
    assert meter.done == 12 * layers, "it is closed"


def test_padding_is_counted():
    assert padded([3, 5, 4]) == 15
    assert padded([3, 5, 4], batch_tokens=8) == 8 + 5
    assert padded([]) == 0


def test_page_10_passes_what_was_counted_and_its_early_forecast_holds(lm: Lm, tmp_path, monkeypatch):
    """The clock is made of what is done: so much a token and layer, so much a pass."""
    counted = total(routing.work(*lm, "tiny", "float32", "small", **CHAPTER))
    watch, calls = Watch(counted, tmp_path / "work.json"), iter(range(10**9))
    monkeypatch.setattr(work, "EVERY", 0.0)
    with Meter(lm[0], watch.path) as meter:
        clock = SimpleNamespace(monotonic=lambda: 1 + 1e-5 * meter.done + 1e-4 * next(calls))
        monkeypatch.setattr(work, "time", clock)
        monkeypatch.setattr(work, "_WATCHED", [meter])

        def look(line: str) -> None:
            watch.look()

        routing.study(*lm, "tiny", "float32", "small", progress=look, **CHAPTER)
    assert meter.done == counted
    found = watch.summary()["work"]
    assert found["studies"]["tokens"] == counted
    assert EARLY <= found["early"]["share"] < 0.6
    assert found["early"]["seconds"] == pytest.approx(found["studies"]["seconds"], rel=0.25)


def test_page_20_passes_what_was_counted(lm: Lm, tmp_path):
    names = tuple(planted.folders(tmp_path))
    config = domain_experts.DomainConfig(names, None, 6)
    counted = domain_experts.domain_work(*lm, "tiny", "float32", "small", config, names)
    with Meter(lm[0]) as meter:
        domain_experts.study(*lm, "tiny", "float32", "small", config, names)
    assert meter.done == total(counted)
    full = domain_experts.domain_work(*lm, "tiny", "float32", "full", config, names)
    assert sum(one.disk for one in full) > 0 == sum(one.disk for one in counted)


def test_page_21_passes_about_what_was_counted(lm: Lm):
    config = SweepConfig.parse("tech", "en,de")
    counted = swept_text.sweep_work(*lm, "tiny", "float32", "small", config, 6)
    with Meter(lm[0]) as meter:
        swept = sweep.study(*lm, "tiny", "float32", "small", config, 6)
        swept_text.study(*lm, swept, "tiny", "float32", "small")
    assert total(counted) == pytest.approx(meter.done, rel=0.1)


@pytest.mark.parametrize("layers", [2, 3, 4])
def test_what_is_timed_of_a_sweep_passes_layers_in_shallow_models_too(lm: Lm, layers: int):
    shallow = LMConfig(vocab=len(lm[1]), hidden=32, layers=layers, heads=1, experts=4, top_k=2, expert_width=16).build()
    texts = ["One two three four.", "Five six."]
    run = swept_text.timed_sweep(shallow.eval(), lm[1], texts)
    with Meter(shallow) as meter:
        run()
    passed = sum(len(lm[1](text)["input_ids"]) for text in texts)
    assert meter.done >= passed * 4 * (layers // 2), "four experts, and at least half of the layers above"


def test_page_11_passes_at_most_what_was_counted_and_not_a_small_part_of_it(lm: Lm, monkeypatch):
    monkeypatch.setattr(steering, "TASKS", ("word problems",))
    options: dict[str, Any] = {"max_segments": 10, "languages": ("en", "de"), "seed": 0}
    counted = steering.work(*lm, "tiny", "float32", "small", **options)
    assert any(one.at_most for one in counted)
    with Meter(lm[0]) as meter:
        made = steering.study(*lm, "tiny", "float32", "small", **options)
    assert made.results
    assert 0.25 * total(counted) < meter.done <= total(counted)
    more = total(steering.work(*lm, "tiny", "float32", "small", **options | {"max_segments": 20}))
    assert more > 1.3 * total(counted)


def test_page_22_passes_at_most_what_was_counted(lm: Lm):
    changes: dict[str, Any] = {"items": 4, "seed": 0, "domains": None, "languages": ("en", "de")}
    counted = reweighting.work(*lm, "tiny", "float32", "small", **changes)
    with Meter(lm[0]) as meter:
        reweighting.study(*lm, "tiny", "float32", "small", **changes)
    assert 0.25 * total(counted) < meter.done <= total(counted)
    more = {one.kind: one.tokens for one in reweighting.work(*lm, "tiny", "float32", "small", **changes, n_draws=6)}
    assert all(more[one.kind] > 1.3 * one.tokens for one in counted if one.kind != "sweeps"), "sets of experts, drawn"


def test_a_model_whose_choices_do_not_share_a_context_has_more_to_pass(lm: Lm, monkeypatch):
    items = [ChoiceItem(str(i), str(i), "In the beginning", ("a b", "c d", "e f", "g h"), 0) for i in range(8)]
    fast = choices.EditedChoices(*lm).tokens(items)
    monkeypatch.setattr(choices.EditedChoices, "_prove", lambda *given: choices.SLOW.format("told so"))
    assert choices.EditedChoices(*lm).tokens(items) > 2 * fast


def test_seconds_are_the_pace_of_each_kind_times_its_work(lm: Lm, tmp_path, monkeypatch):
    write(tmp_path, "10_first", "1", parameters="model: str = ''\nmax_segments: int = 7")
    write(tmp_path, "20_second", "1", parameters="model: str = ''")
    write(tmp_path, "30_third", "1", parameters="model: str = ''")
    clock = iter(np.arange(0, 1000, 12.0))  # twelve seconds from one look to the next
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: float(next(clock))))
    monkeypatch.setattr(
        module,
        "KINDS",
        {"routes": lambda model, tokenizer, texts: lambda: segment_pass(model, tokenizer, ["a b", "c"])},
    )
    with Meter(lm[0]) as meter:
        segment_pass(*lm, ["a b", "c"])
    seen = []

    def counts(lm, own):
        seen.append((own["model"], own["max_segments"]))
        return [Work("routes", 5.0 * meter.done, 3), Work("routes", 0.0, 4, at_most=True)]

    def fails(lm, own):
        raise ValueError("no such text")

    monkeypatch.setattr(module, "PAGES", {"10_first": counts, "20_second": fails})
    rows = forecast(lm, {"10_first": {"model": "m"}, "20_second": {}, "30_third": {}}, tmp_path, 10**9)
    assert seen == [("m", 7)], "what is not given is the notebook's own"
    assert rows["10_first"]["seconds"] == pytest.approx(60)
    assert (rows["10_first"]["disk"], rows["10_first"]["memory"]) == (7, 10**9)
    assert rows["20_second"]["unknown"] == "not known, no such text"
    assert "not counted beforehand" in rows["30_third"]["unknown"]
    lines = told(rows)
    assert lines[0].startswith("10_first: at most ")
    assert "1.0 min, then resampling and figures; memory 1.0 GB" in lines[0]
    assert lines[1] == "20_second: not known, no such text; memory 1.0 GB"


def test_hours_are_told_as_people_do():
    assert [hours(own) for own in (5.25, 90.0, 5400.0)] == ["5.2 s", "1.5 min", "1.5 h"]


def test_more_work_than_was_counted_is_no_more_than_all_of_it(tmp_path):
    watch = Watch(1000.0, tmp_path / "work.json")
    assert watch.look() is None
    assert watch.summary() == {}
    for tokens, seconds in ((10, 3.0), (30, 9.0), (1000, 200.0), (2000, 500.0)):
        watch.path.write_text(json.dumps({"tokens": tokens, "seconds": seconds, "studies": {}}))
        seen = watch.look()
        assert seen is not None
        assert seen[0] == min(1, tokens / 1000)
    assert watch.early == {"share": 0.03, "seconds": 300.0}, "the first look after 2 %"
    assert watch.summary()["work"]["tokens"] == 2000


def test_the_forecast_made_beforehand_counts_less_the_more_is_done(tmp_path):
    watch = Watch(1000.0, tmp_path / "work.json", 100.0)
    for tokens, seconds, whole in ((20, 6.0, (6 + 19.6) / 0.216), (500, 75.0, 85 / 0.6), (1000, 130.0, 130.0)):
        watch.path.write_text(json.dumps({"tokens": tokens, "seconds": seconds, "studies": {}}))
        seen = watch.look()
        assert seen is not None
        assert seen == pytest.approx((tokens / 1000, whole))
    assert watch.early["seconds"] == pytest.approx(118.5, abs=0.1), "300 by the slow first passes alone"


def test_a_page_writes_its_work_where_the_run_looks(lm: Lm, monkeypatch):
    monkeypatch.setattr(work, "EVERY", 0.0)
    with watching("page", {"tokens": 10.0}, False) as watch:
        work.watch(lm[0])
        segment_pass(*lm, ["a", "b"])
        work.study_finished()
        seen = watch.look()
        found = watch.summary()["work"]
    assert seen == (1.0, found["early"]["seconds"])
    assert found["early"]["share"] == 1.0
    assert found["studies"]["tokens"] == found["tokens"] == work._WATCHED[0].done
    work.study_finished()  # nobody waits any more
    work._WATCHED.pop().close()


def test_a_dry_run_tells_and_writes_nothing(tmp_path, monkeypatch):
    write(tmp_path / "notebooks", "10_first", "1 / 0", parameters="model = ''")
    monkeypatch.setattr(module, "PAGES", {"10_first": lambda lm, own: [Work("routes", 1e6)]})
    lines = []
    found = look_ahead(Rerun("tiny", tmp_path / "out"), tmp_path / "notebooks", lines.append)
    assert found["10_first"]["seconds"] > 0
    assert any(line.startswith("forecast: 10_first: ") and "passes of 4,096 tokens" in line for line in lines)
    assert not (tmp_path / "out").exists()


def test_pages_that_are_counted_are_there():
    names = {path.stem for path in Path("notebooks").glob("*.ipynb")}
    assert set(PAGES) | set(module.FEW) <= names
    skipped = ("00", "01", "02", "12", "13", "30", "40", "41")  # see `rerun_plan`
    assert {name for name in names if not name.startswith(skipped)} == set(PAGES) | set(module.FEW)
