from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from mechanism.trace import (
    Ablate,
    AttachError,
    CaptureError,
    Forbid,
    ForceSelection,
    InterventionError,
    RoutingStats,
    SoftSteer,
    attach,
    expert_means,
    find_sites,
    pairs,
    routers,
)
from mechanism.trace.call import rows_of
from mechanism.trace.edit import SiteEdit
from mechanism.trace.families import tiny_model
from mechanism.trace.family_sizes import VOCAB

IDS = torch.randint(3, VOCAB, (2, 12), generator=torch.Generator().manual_seed(0))
MASK = torch.ones_like(IDS)
MASK[1, 8:] = 0


@pytest.fixture
def model():
    return tiny_model("qwen3_moe")


@torch.no_grad()
def run(model, **given):
    given = {"input_ids": IDS, "attention_mask": MASK} | given
    return model(**given).logits


def test_dataset_holds_what_the_modules_did(model):
    inputs, received = {}, {}
    for site in find_sites(model):
        site.router.register_forward_hook(lambda m, a, o, k=site.layer: inputs.update({k: a[0]}))
        site.experts.register_forward_pre_hook(lambda m, a, k=site.layer: received.update({k: a[1:]}))
    with attach(model) as trace:
        run(model)
    data = trace.dataset()
    assert data.sizes == {"batch": 2, "pos": 12, "layer": 4, "expert": 8, "slot": 2}
    real = MASK.bool().numpy()
    assert (data["mask"].values == real).all()
    for site in find_sites(model):
        here = data.sel(layer=site.layer)
        logits = F.linear(inputs[site.layer], site.weight).detach().view(2, 12, 8)
        assert torch.equal(torch.from_numpy(here["router_logits"].values[real]), logits[MASK.bool()])
        index, weight = received[site.layer]
        assert (here["expert_index"].values[real] == index.view(2, 12, 2)[MASK.bool()].numpy()).all()
        assert (here["expert_weight"].values[real] == weight.view(2, 12, 2)[MASK.bool()].detach().numpy()).all()
    assert data["router_logits"].isnull().values[~real].all()
    assert (data["expert_index"].values[~real] == -1).all()


def test_layer_is_the_models_layer_where_early_layers_are_dense():
    model = tiny_model("deepseek_v3")
    with attach(model) as trace:
        run(model)
    assert trace.dataset()["layer"].values.tolist() == [1, 2, 3]
    assert routers(model).index.tolist() == [1, 2, 3]
    assert routers(model)["shared"].tolist() == ["shared_experts"] * 3


def test_generation_has_one_prefill_and_then_decodes(model):
    stats = RoutingStats()
    with attach(model, stats=stats) as trace:
        model.generate(IDS, attention_mask=MASK.flip(1), max_new_tokens=4, min_new_tokens=4, do_sample=False)
    assert trace.dataset()["phase"].values.tolist() == ["prefill"] * 12 + ["decode"] * 3
    assert stats.dataset()["tokens"].sel(group="all", layer=0).values.tolist() == [20, 6]
    assert [r.at.position[1].tolist() for r in trace.records[1:]] == [[8], [9], [10]]


def test_positions_count_real_tokens_whatever_the_padding(model):
    edit = Forbid(pairs([0, 1, 2, 3], 1), positions=(2, 4))
    left = {"input_ids": F.pad(IDS[:1], (3, 0)), "attention_mask": F.pad(MASK[:1], (3, 0))}
    with attach(model, [edit]) as trace:
        run(model)
        run(model, **left)
    plain, shifted = trace.records
    assert (plain.layers[0].index[:, 2:4] != 1).all()
    assert (shifted.layers[0].index[0, 5:7] != 1).all()


def test_scope_leaves_other_tokens_alone(model):
    with attach(model) as clean:
        run(model)
    expert = int(clean.records[0].layers[0].index[0, 0, 0])
    keep = torch.zeros_like(MASK)
    keep[0, 0] = 1
    with attach(model, [Forbid(pairs(0, expert), where="first")], masks={"first": keep}) as trace:
        run(model)
    before, after = clean.records[0].layers[0].index, trace.records[0].layers[0].index
    assert expert not in after[0, 0]
    assert torch.equal(before.flatten(0, 1)[1:], after.flatten(0, 1)[1:])
    changes = trace.changes().loc[0]
    assert changes["tokens"] == 20
    assert changes["changed"] == pytest.approx(1 / 20)
    assert 0 < changes["weight_moved"] < 1 / 20


def test_masks_may_be_functions_of_ids(model):
    token = int(IDS[0, 3])
    edit = ForceSelection(pairs(2, 5), where="token")
    with attach(model, [edit], masks={"token": lambda ids: ids == token}) as trace:
        run(model)
    chosen = (trace.records[0].layers[2].index == 5).any(-1)
    assert chosen[token == IDS].all()
    with pytest.raises(InterventionError, match="no token mask"), attach(model, [edit]):
        run(model)
    with pytest.raises(InterventionError, match="shape"), attach(model, [edit], masks={"token": MASK[:1]}):
        run(model)


def test_interventions_compose(model):
    edits = [
        SoftSteer(pairs(0, 0), strength=1.0),
        Forbid(pairs(1, 2)),
        Ablate(pairs(2, 3)),
        ForceSelection(pairs(1, 4)),
    ]
    with attach(model, edits) as trace:
        run(model)
    layers = trace.records[0].layers
    assert ((layers[1].index == 4).any(-1) & ~(layers[1].index == 2).any(-1)).all()
    assert (layers[2].weight[layers[2].index == 3] == 0).all()
    assert set(trace.changes().index) == {0, 1, 2}


def test_gradients_flow_through_steering(model):
    model.requires_grad_(requires_grad=True)
    with attach(model, [SoftSteer(pairs(1, 3), strength=0.3)]):
        model(input_ids=IDS).logits.sum().backward()
    gradient = find_sites(model)[1].weight.grad
    assert gradient is not None
    assert gradient.abs().sum() > 0


def test_mean_ablation_needs_means(model):
    edit = [Ablate(pairs(1, 3), mode="mean")]
    with pytest.raises(InterventionError, match="mean outputs"):
        attach(model, edit)
    means = expert_means(model, [{"input_ids": IDS, "attention_mask": MASK}])
    with attach(model, edit, means=means):
        assert not torch.equal(run(model), run(tiny_model("qwen3_moe")))
    means[1][3] = torch.nan
    with pytest.raises(InterventionError, match=r"\(1, 3\)\] have no mean output"):
        attach(model, edit, means=means)
    with pytest.raises(InterventionError, match="at least one batch"):
        expert_means(model, [])


def test_means_can_leave_the_first_real_token_out(model):
    """An expert's mean over text does not move with the token that opens a sequence, padding on either side."""
    text = torch.arange(5, 15).reshape(2, 5)
    mask = torch.tensor([[0, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 0]])
    ids = torch.zeros_like(mask)
    ids[0, 2:], ids[1, 1:6] = text
    with torch.no_grad():
        model.model.layers[0].self_attn.o_proj.weight.zero_()  # no token sees another
    found = {}
    for first in (0, 1):
        for opening in (30, 40):
            ids[0, 1] = ids[1, 0] = opening
            found[first, opening] = expert_means(model, [{"input_ids": ids, "attention_mask": mask}], first)[0]
    same = {first: torch.allclose(found[first, 30], found[first, 40], atol=1e-6, equal_nan=True) for first in (0, 1)}
    assert same == {0: False, 1: True}


def test_model_is_restored_also_after_an_error(model):
    before = run(model)
    site = find_sites(model)[-1]
    handle = site.experts.register_forward_hook(lambda m, a, o: 1 / 0)
    with pytest.raises(ZeroDivisionError), attach(model, [Forbid(pairs(0, 1))], check=False):
        run(model)
    handle.remove()
    assert torch.equal(run(model), before)
    assert not [h for m in model.modules() for h in (m._forward_hooks, m._forward_pre_hooks) if h]


def test_a_model_is_attached_once(model):
    with attach(model), pytest.raises(AttachError, match="attached already"), attach(model):
        pass
    with attach(model):
        pass


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_compiled_models_are_refused(model):
    with pytest.raises(AttachError, match=r"before torch\.compile"):
        attach(torch.compile(model))  # type: ignore[arg-type]
    model.model.layers[1].compile()
    with pytest.raises(AttachError, match=r"model\.layers\.1 is compiled"):
        attach(model)


def test_offloaded_models_are_refused(model):
    with pytest.raises(AttachError, match="no weights on a device"):
        attach(model.to("meta"))


def test_expert_parallel_models_are_refused(model):
    find_sites(model)[0].experts._is_expert_parallel = True  # type: ignore[assignment]
    with pytest.raises(AttachError, match="sharded"):
        attach(model)


def test_gradient_checkpointing_is_refused_in_training_only(model):
    for layer in model.model.layers:
        layer.gradient_checkpointing = True
    with attach(model.eval()) as trace:
        run(model)
    assert len(trace.records) == 1
    model.train()
    with pytest.raises(CaptureError, match="gradient checkpointing"), attach(model):
        model(input_ids=IDS)


def test_nan_logits(model):
    with torch.no_grad():
        find_sites(model)[2].weight[0, 0] = float("nan")
    with pytest.raises(CaptureError, match=r"layer 2.*NaN"), attach(model, check=False):
        run(model)


def test_a_batch_of_padding(model):
    with attach(model) as trace, pytest.raises(CaptureError, match="all padding"):
        run(model, attention_mask=torch.zeros_like(MASK))
    assert trace.records == []


def test_masks_of_unknown_meaning(model):
    with attach(model), pytest.raises(CaptureError, match="attention mask is"):
        run(model, attention_mask=torch.ones(2, 1, 12, 12))


def test_calls_around_the_attached_model(model):
    with attach(model), pytest.raises(CaptureError, match="attach to the module you call"):
        model.model(input_ids=IDS)


def test_a_dense_model_and_a_model_without_a_tokens(model):
    from transformers import LlamaConfig, LlamaForCausalLM

    dense = LlamaForCausalLM(LlamaConfig(hidden_size=32, intermediate_size=32, num_hidden_layers=1, vocab_size=97,
                                         num_attention_heads=2))  # fmt: skip
    with pytest.raises(Exception, match="dense model"):
        attach(dense)
    with attach(model), pytest.raises(CaptureError, match="input_ids"):
        model()


def test_embeddings_instead_of_ids(model):
    with attach(model) as trace:
        run(model, input_ids=None, inputs_embeds=model.get_input_embeddings()(IDS))
        run(model)
    assert torch.equal(trace.records[0].layers[3].index, trace.records[1].layers[3].index)


def test_sharded_weights_are_refused(model):
    class DTensor(torch.nn.Parameter):
        pass

    router = find_sites(model)[1].router
    router.weight = DTensor(router.weight.data)  # type: ignore[arg-type]
    with pytest.raises(AttachError, match="sharded over processes"):
        attach(model)


def test_edits_stay_on_the_layers_device(model):
    """Masks are made where the input is, layers may lie elsewhere: torch refuses a mix with the meta device too."""
    there = torch.device("meta")
    site = replace(find_sites(model)[0], weight=torch.empty(8, 32, device=there))
    scope = rows_of(torch.zeros(6, dtype=torch.bool), site)
    edit = SiteEdit(site, [SoftSteer(pairs(0, 1), strength=1.0), Ablate(pairs(0, 2)), Forbid(pairs(0, 3))], [scope] * 3)
    assert edit.logits(torch.empty(6, 8, device=there)).device == there
    index = torch.zeros(6, 2, dtype=torch.long, device=there)
    assert edit.weights(index, torch.empty(6, 2, device=there)).device == there
    forbidden = edit.selection(("selection",), there).forbid
    assert forbidden is not None
    assert forbidden.device == there
