"""What was loaded is what was named: checkpoints as people have them, each refused by name or read whole."""

import json
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from mechanism.corpus.library import DATA
from mechanism.corpus.tokenizer import load_tokenizer
from mechanism.models import file_hashes
from mechanism.models.errors import ModelError
from mechanism.models.load import load, load_config, load_model, model_hash, require_memory
from mechanism.models.memory import routed_experts, skeleton
from mechanism.trace.families import tiny_model

WEIGHTS = "model.safetensors"
TOKENIZER = load_tokenizer(DATA / "tokenizer")


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("good") / "model"
    tiny_model("olmoe", vocab_size=len(TOKENIZER)).save_pretrained(folder)
    TOKENIZER.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(good, tmp_path) -> Path:
    return Path(shutil.copytree(good, tmp_path / "model"))


def rewrite(folder: Path, change: Callable[[dict], dict]) -> None:
    save_file(change(load_file(folder / WEIGHTS)), folder / WEIGHTS, {"format": "pt"})


def configured(folder: Path, **fields) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def without(part: str) -> Callable[[dict], dict]:
    return lambda weights: {name: value for name, value in weights.items() if part not in name}


def test_a_whole_checkpoint_is_taken(good):
    assert load(str(good), "cpu", moe=True).moe


@pytest.mark.parametrize("part", [".gate.weight", ".experts.", "layers.1.self_attn.q_proj", "norm.weight"])
def test_missing_weights_are_refused_by_name(folder, part):
    rewrite(folder, without(part))
    with pytest.raises(ModelError, match=r"lacks weights, which would be drawn at random: .*partial=True"):
        load_model(str(folder), "cpu")
    assert load(str(folder), "cpu", partial=True).model


def test_weights_under_another_prefix_are_missing(folder):
    rewrite(folder, lambda own: {n.replace("model.layers", "model.language.layers"): v for n, v in own.items()})
    with pytest.raises(ModelError, match="lacks weights"):
        load_model(str(folder), "cpu")


def test_weights_that_nothing_reads_are_refused(folder):
    rewrite(folder, lambda own: own | {"model.layers.0.mlp.adapter.weight": torch.ones(2, 2)})
    with pytest.raises(ModelError, match=r"does not use: model\.layers\.0\.mlp\.adapter\.weight"):
        load_model(str(folder), "cpu")


@pytest.mark.parametrize("field", ["num_experts", "vocab_size", "intermediate_size"])
def test_weights_of_another_shape_are_refused(folder, field):
    configured(folder, **{field: json.loads((folder / "config.json").read_text())[field] * 2})
    with pytest.raises(ModelError, match="has weights of another shape than its configuration says: "):
        load_model(str(folder), "cpu")


def test_an_adapter_on_a_hub_is_refused(folder, tmp_path, monkeypatch):
    """From the cache of an earlier download, since tests have no network."""
    place, commit = tmp_path / "cache" / "models--owner--name", "a" * 40
    for part in ("snapshots", "refs"):
        (place / part).mkdir(parents=True)
    (place / "snapshots" / commit).symlink_to(folder)
    (place / "refs" / "main").write_text(commit)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    assert load("owner/name", "cpu").moe
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    for spec in ("owner/name", "owner/name@main"):
        with pytest.raises(ModelError, match=rf"{spec} holds an adapter .* merge it into its base first"):
            load(spec, "cpu")


def test_an_adapter_beside_a_model_is_refused(folder):
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    with pytest.raises(ModelError, match=r"holds an adapter .* merge it into its base first"):
        load_model(str(folder), "cpu")


def test_a_folder_without_a_tokenizer_is_refused(folder):
    for path in [*folder.glob("tokenizer*"), *folder.glob("special_tokens*")]:
        path.unlink()
    with pytest.raises(ModelError, match="tokenizer"):
        load_model(str(folder), "cpu")


def test_the_tokenizer_of_a_larger_model_is_refused(folder):
    model = tiny_model("olmoe", vocab_size=40)
    model.save_pretrained(folder)
    with pytest.raises(ModelError, match=r"gives the id \d+, and the model embeds 40 ids"):
        load_model(str(folder), "cpu")


def test_a_token_to_pad_with_that_the_model_does_not_embed_is_replaced(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.save_pretrained(folder)
    found = load(str(folder), "cpu")
    assert found.tokenizer.pad_token_id < len(TOKENIZER)
    assert torch.isfinite(found(["Open the file.", "Close."]).logits).all()


# With accelerate, transformers builds these two on a CPU by itself; there is nothing to refuse then.
READ_BY_ACCELERATE = () if find_spec("accelerate") else ("fp8", "mxfp4")


@pytest.mark.parametrize(
    "fields",
    [{"quantization_config": {"quant_method": name, "bits": 4}} for name in ("gptq", "awq", *READ_BY_ACCELERATE)]
    + [{"quantization_config": {"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": {}}}]
    + [{"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}]
    + [{"num_hidden_layers": "two"}, {"hidden_act": "nothing"}],
    ids=str,
)
def test_what_cannot_be_built_is_one_sentence(folder, fields):
    configured(folder, **fields)
    with pytest.raises(ModelError) as refused:
        load_model(str(folder), "cpu")
    assert "\n" not in str(refused.value)


@pytest.mark.skipif(not find_spec("accelerate"), reason="these are refused without accelerate, see above")
@pytest.mark.parametrize("name", ["fp8", "mxfp4"])
def test_what_accelerate_reads_is_what_the_file_holds(good, folder, name):
    configured(folder, quantization_config={"quant_method": name, "bits": 4})
    found, plain = (dict(load_model(str(one), "cpu")[0].named_parameters()) for one in (folder, good))
    assert found.keys() == plain.keys()
    for parameter, own in found.items():
        assert own.dtype == plain[parameter].dtype
        assert torch.equal(own, plain[parameter]), parameter


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model-00002-of-00002.safetensors", "weights.gguf", WEIGHTS])
def test_a_model_is_known_by_all_of_its_weights(folder, name):
    before = model_hash(str(folder))
    (folder / name).write_bytes(b"one")
    one = model_hash(str(folder))
    (folder / name).write_bytes(b"two")
    assert len({before, one, model_hash(str(folder))}) == 3


def test_the_weights_of_a_large_model_are_sampled(folder, monkeypatch):
    whole = model_hash(str(folder))
    monkeypatch.setattr(file_hashes, "_WHOLE", 0)
    monkeypatch.setattr(file_hashes, "_BLOCK", 4096)
    before, path = model_hash(str(folder)), folder / WEIGHTS
    assert before != whole, "a sample is not the whole"
    content = bytearray(path.read_bytes())
    for place in (0, len(content) // 63, len(content) - 1):
        changed = content.copy()
        changed[place] ^= 1
        path.write_bytes(changed)
        assert model_hash(str(folder)) != before
    path.write_bytes(content + b"\0")
    assert model_hash(str(folder)) != before, "the size counts"


def test_experts_are_found_as_capture_finds_them(tmp_path):
    for family in ("dbrx", "mixtral", "hunyuan_v1_moe"):
        tiny_model(family).save_pretrained(tmp_path / family)
        assert routed_experts(skeleton(load_config(str(tmp_path / family)))) == 8, "in a nested configuration as well"


def test_weights_that_are_stored_twice_are_counted_once(folder):
    once = require_memory(str(folder), "cpu").parameters
    shutil.copy(folder / WEIGHTS, folder / "consolidated.safetensors")
    assert require_memory(str(folder), "cpu").parameters == once
