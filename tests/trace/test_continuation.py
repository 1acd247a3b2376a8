import numpy as np
import pytest
import torch

from mechanism.trace import Ablate, expert_means, find_sites
from mechanism.trace.continuation import CleanPass
from mechanism.trace.families import tiny_model
from mechanism.trace.proof import naive_logits, proven
from mechanism.trace.reach import selecting, spread, touched

MODES = ("zero", "reroute", "mean")


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.randint(3, 97, (4, 20), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[2, 14:] = mask[3, 9:] = 0
    return ids, mask


def means_of(model, ids, mask):
    return expert_means(model, [{"input_ids": ids, "attention_mask": mask, "use_cache": False}])


@pytest.mark.parametrize("family", ["mixtral", "gpt_oss", "deepseek_v3", "gemma4_text", "jamba", "zaya"])
def test_going_on_equals_a_whole_pass(family):
    model, (ids, mask) = tiny_model(family), batch()
    means = means_of(model, ids, mask)
    way = proven(model, ids, mask, MODES, means)
    assert {"zero", "mean"} <= set(way.via)
    before = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    clean = CleanPass(model, ids, mask, find_sites(model))
    rows = torch.tensor([3, 0, 2, 0])
    for layer, mode in ((layer, mode) for layer in clean.sites for mode in way.via):
        expert = int(clean.index[layer][mask != 0].flatten().clamp(max=7).bincount().argmax())
        experts = torch.full_like(rows, expert)
        wanted = naive_logits(model, ids, mask, Ablate(((layer, expert),), mode=mode), means)[rows]  # type: ignore[arg-type]
        chosen = touched(clean, layer, selecting(clean, layer, experts, rows)) & (mask[rows] != 0)
        found = clean.logits[rows]
        change = spread(clean, layer, clean.change(layer, mode, means[layer]), experts, rows)
        found[chosen] = clean.go_on(layer, rows, change, chosen, way.via[mode])
        real = mask[rows] != 0
        torch.testing.assert_close(found[real], wanted[real], rtol=1e-4, atol=1e-4)
    after = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    assert torch.equal(before, after), "the model is as it was"
    assert not [m for m in model.modules() if "forward" in m.__dict__]


def test_modules_are_restored_after_an_error():
    model, (ids, mask) = tiny_model("mixtral"), batch()
    clean = CleanPass(model, ids, mask, find_sites(model))
    with pytest.raises(RuntimeError):
        clean.go_on(1, torch.tensor([0]), torch.zeros(1, 3, 32), mask[:1] != 0)
    assert not [m for m in model.modules() if "forward" in m.__dict__]


def test_state_across_layers_is_found_out():
    """The last layer is given what the first one made, beside the hidden states."""
    model, (ids, mask) = tiny_model("mixtral"), batch()
    kept = []
    model.model.layers[0].register_forward_hook(lambda module, args, output: kept.append(output))
    model.model.layers[3].register_forward_pre_hook(lambda module, args: (args[0] + kept[-1], *args[1:]))
    way = proven(model, ids, mask, ("zero",))
    assert not way.via
    assert "restarting is off by" in way.reasons["zero"]


def test_what_no_restart_can_do_is_not_proven():
    """Weights that are not renormalised change for every token when an expert is masked, not only for its own."""
    model, (ids, mask) = tiny_model("olmoe"), batch()
    way = proven(model, ids, mask, ("zero", "reroute"))
    assert set(way.via) == {"zero"}
    assert "restarting is off by" in way.reasons["reroute"]


def test_experts_that_are_not_called_by_index_are_told():
    model, (ids, mask) = tiny_model("llama4_text"), batch()
    way = proven(model, ids, mask, ("zero",))
    assert not way.via
    assert "not called by index" in way.reasons["zero"]


def test_scaled_logits_need_the_head():
    """Granite divides its logits after the head: the head's map alone is not the model's."""
    ids, mask = batch()
    assert proven(tiny_model("mixtral"), ids, mask, ("zero",)).plain
    scaled = proven(tiny_model("granitemoe", logits_scaling=4.0), ids, mask, ("zero",))
    assert scaled.via == {"zero": "added"}
    assert not scaled.plain


def test_tokens_before_the_first_use_are_untouched():
    model, (ids, mask) = tiny_model("mixtral"), batch()
    clean = CleanPass(model, ids, mask, find_sites(model))
    own = torch.tensor([[False, True, False, True]])
    assert touched(clean, 1, own).tolist() == [[False, True, True, True]]
    assert touched(clean, 3, own).tolist() == own.tolist()
    assert np.isfinite(clean.logits.detach().numpy()).all()
