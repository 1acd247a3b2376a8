import json
import shutil

import pytest
import torch

from mechanism.corpus.library import DATA
from mechanism.corpus.tokenizer import load_tokenizer
from mechanism.models.load import (
    MODELS,
    ModelError,
    describe,
    load,
    load_model,
    model_hash,
    save_model,
    training_run,
)
from mechanism.nn.lm import LMConfig
from mechanism.trace import attach, find_sites
from mechanism.trace.families import tiny_model

SMALL = LMConfig(hidden=32, layers=1, heads=1, head_dim=32, experts=4, expert_width=16)


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dense")
    torch.manual_seed(0)
    dense = LMConfig(hidden=32, layers=1, heads=1, head_dim=32, experts=0, expert_width=16)
    save_model(dense.build(), load_tokenizer(DATA / "tokenizer"), folder, {})
    return folder


@pytest.mark.parametrize("name", sorted(p.parent.name for p in MODELS.glob("*/config.json")))
def test_committed_models_load_and_belong_to_a_record(name):
    model, tokenizer = load_model(name, "cpu", moe=True)
    assert model.config.vocab_size == len(tokenizer)
    assert "routed experts per layer" in describe(name)
    assert training_run(name)


def test_saved_model_round_trips_in_bfloat16(tmp_path):
    torch.manual_seed(0)
    model = SMALL.build()
    save_model(model, load_tokenizer(DATA / "tokenizer"), tmp_path / "m", {"name": "x"})
    assert {p.dtype for p in model.parameters()} == {torch.float32}, "the model itself is left as it was"
    again, _ = load_model(str(tmp_path / "m"), "cpu", "bfloat16")
    for (name, a), b in zip(model.named_parameters(), again.parameters(), strict=True):
        assert torch.equal(a.to(torch.bfloat16), b), name


def test_nothing_there():
    with pytest.raises(ModelError, match=r"no model at './missing'; committed models: .*tiny"):
        load_model("./missing")
    with pytest.raises(ModelError, match="no model at 'embeded'"):
        load_model("embeded")


def test_a_folder_without_a_model(tmp_path):
    with pytest.raises(ModelError, match=r"has no config\.json"):
        load_model(str(tmp_path))


def test_hub_id_without_network():
    with pytest.raises(ModelError, match=r"cannot get 'nobody/nothing' from the hub.*network"):
        load_model("nobody/nothing")


def test_dense_model_is_refused_where_experts_are_needed(dense):
    assert load_model(str(dense), "cpu")
    with pytest.raises(ModelError, match=r"is a dense model \(qwen3\)"):
        load_model(str(dense), "cpu", moe=True)


def test_unknown_dtype(dense):
    with pytest.raises(ModelError, match="unknown dtype 'float99'"):
        load_model(str(dense), "cpu", "float99")


def test_damaged_weights_are_named(tmp_path):
    folder = tmp_path / "damaged"
    shutil.copytree(MODELS / "tiny", folder)
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ModelError, match=r"is corrupted: its sha256 is not the one in card\.json; restore it"):
        load_model(str(folder))
    (folder / "card.json").unlink()
    weights.write_bytes(bytes(content[:1000]))
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_model(str(folder))


def test_card_holds_the_hash(tmp_path):
    save_model(SMALL.build(), load_tokenizer(DATA / "tokenizer"), tmp_path, {"name": "x"})
    assert set(json.loads((tmp_path / "card.json").read_text())) == {"name", "sha256"}


def test_a_loaded_model_is_called_with_texts():
    found = load("tiny", "cpu", moe=True)
    assert (found.spec, found.dtype, found.device, found.moe) == ("tiny", "float32", "cpu", True)
    assert found.hash == model_hash("tiny")
    one, two = found("Click OK."), found(["Click OK.", "In the beginning"])
    ids = torch.tensor([[found.tokenizer.eos_token_id, *found.tokenizer("Click OK.")["input_ids"]]])
    torch.testing.assert_close(one.logits, found.model(ids).logits)
    torch.testing.assert_close(two.logits[:1, : ids.shape[1]], one.logits)
    assert not one.logits.requires_grad


def test_a_dense_loaded_model_says_so(dense):
    assert not load(str(dense), "cpu").moe


def test_the_hash_of_a_model_sees_its_files(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    empty = model_hash(str(folder))
    (folder / "model.safetensors").write_bytes(b"weights")
    weights = model_hash(str(folder))
    (folder / "README.md").write_text("not part of the model")
    assert model_hash(str(folder)) == weights != empty


def test_a_whole_model_for_images_and_text_is_loaded_whole_and_its_text_routing_observed(tmp_path):
    tokenizer = load_tokenizer(DATA / "tokenizer")
    model = tiny_model("qwen3_vl_moe", vocab_size=len(tokenizer))
    save_model(model, tokenizer, tmp_path, {"name": "x"})
    found = load(str(tmp_path), "cpu", "bfloat16", moe=True)
    assert type(found.model) is type(model)
    with attach(found.model) as trace:
        found("Click OK.")
    assert list(trace.dataset()["layer"]) == [s.layer for s in find_sites(model)]
