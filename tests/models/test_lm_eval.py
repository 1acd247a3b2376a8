"""The bridge to lm-evaluation-harness: local tasks, and a steered model whose scores are those of steered passes."""

import inspect
import json
import math
from pathlib import Path

import pytest
import torch
import yaml

from mechanism.corpus.library import committed
from mechanism.corpus.store import CorpusError
from mechanism.corpus.tasks import next_segment
from mechanism.models import lm_eval as harness
from mechanism.models.load import ModelError, load_model
from mechanism.trace import Forbid, attach, pairs, to_json

pytestmark = pytest.mark.filterwarnings("ignore")  # the harness's own
EDITS = [Forbid(pairs(range(2), [0, 1]))]


def test_tasks_hold_the_items_of_next_segment_choice(tmp_path):
    assert harness.write_tasks(tmp_path, "tech", ("en", "de"), "test", 5) == [
        "next_segment_tech_en",
        "next_segment_tech_de",
    ]
    task = yaml.safe_load((tmp_path / "next_segment_tech_de.yaml").read_text("utf-8"))
    lines = Path(task["dataset_kwargs"]["data_files"]["test"]).read_text("utf-8").splitlines()
    items = next_segment(committed("tech"), "de", "test", limit=5)
    assert [json.loads(line)["context"] for line in lines] == [item.context for item in items]
    assert [json.loads(line)["answer"] for line in lines] == [item.answer for item in items]
    with pytest.raises(CorpusError, match="no xx in udhr"):
        harness.write_tasks(tmp_path, "udhr", ("xx",), "test", 5)
    with pytest.raises(CorpusError, match="udhr has no test document in de that is long enough"):
        harness.write_tasks(tmp_path, "udhr", ("de",), "test", 5)


def test_without_the_harness_it_is_one_sentence(monkeypatch):
    monkeypatch.setattr(harness.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"lm_eval and accelerate not installed: pip install 'mechanism\[lm-eval\]'"):
        harness.main(["--help"])


@pytest.mark.parametrize(
    ("name", "said"),
    [("edit", "did you mean edits"), ("load_in_4bit", "known are"), ("revision", "known are"),
     ("parallelize", "known are"), ("batchsize", "did you mean batch_size"), ("peft", "known are"),
     ("trust_remote_code", "known are")],
)  # fmt: skip
def test_an_argument_that_would_do_nothing_is_refused(name, said):
    with pytest.raises(ModelError, match=rf"no argument '{name}': it would do nothing; {said}"):
        harness.refuse_unknown([name])
    harness.refuse_unknown(harness.TAKEN)


def test_the_arguments_that_are_taken_exist():
    pytest.importorskip("lm_eval", reason="the extra lm-eval is not installed")
    from lm_eval.models.huggingface import HFLM

    assert set(harness.TAKEN) <= set(inspect.signature(HFLM.__init__).parameters)


def score(model, tokenizer, context: str, choice: str, edits) -> float:
    """Log-likelihood of a choice as the harness defines it: white space that ends the context goes to the choice."""
    opened = context.rstrip()
    whole = tokenizer.encode(context + choice)
    start = len(tokenizer.encode(opened))
    ids = torch.tensor([whole])
    with attach(model, edits, keep=False), torch.no_grad():
        logprobs = model(ids).logits.log_softmax(-1)
    return float(sum(logprobs[0, i - 1, whole[i]] for i in range(start, len(whole))))


@pytest.mark.parametrize("edits", [[], EDITS], ids=["plain", "steered"])
def test_a_task_runs_on_a_steered_model(edits, tmp_path, monkeypatch):
    lm_eval = pytest.importorskip("lm_eval", reason="the extra lm-eval is not installed")
    pytest.importorskip("accelerate", reason="the extra lm-eval is not installed")
    from lm_eval.tasks import TaskManager

    from mechanism.models.lm_eval_model import EditedLM

    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    (name,) = harness.write_tasks(tmp_path / "tasks", "udhr", ("en",), "test", 4)
    (tmp_path / "edits.json").write_text(to_json(edits), "utf-8")
    made = EditedLM("tiny", str(tmp_path / "edits.json"), device="cpu", batch_size=2)
    manager = TaskManager(include_path=str(tmp_path / "tasks"), include_defaults=False)
    found = lm_eval.simple_evaluate(made, tasks=[name], task_manager=manager, bootstrap_iters=0, log_samples=True)
    items = next_segment(committed("udhr"), "en", "test", limit=4)
    model, tokenizer = load_model("tiny", "cpu")
    samples = sorted(found["samples"][name], key=lambda sample: sample["doc_id"])
    hits = []
    for item, sample in zip(items, samples, strict=True):
        wanted = [score(model, tokenizer, item.context, choice, edits) for choice in item.choices]
        got = [float(answer[0]) for answer in sample["filtered_resps"]]
        assert got == pytest.approx(wanted, abs=2e-3)
        hits.append(max(range(4), key=wanted.__getitem__) == item.answer)
    assert math.isclose(found["results"][name]["acc,none"], sum(hits) / len(hits))
    if edits:
        plain = score(model, tokenizer, items[0].context, items[0].choices[0], [])
        assert abs(plain - score(model, tokenizer, items[0].context, items[0].choices[0], edits)) > 0.01


def test_edits_that_cannot_be_read(tmp_path):
    pytest.importorskip("lm_eval", reason="the extra lm-eval is not installed")
    from mechanism.models.lm_eval_model import EditedLM

    with pytest.raises(ModelError, match="no interventions in"):
        EditedLM("tiny", str(tmp_path / "none.json"))
