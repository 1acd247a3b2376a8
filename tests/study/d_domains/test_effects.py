"""Ablating every expert of a batch: equal by restarts and by whole passes, and planted truths."""

import numpy as np
import pytest
import torch

from mechanism.measure.causal import Effects, gini, top_experts
from mechanism.measure.documents import Documents, Domains
from mechanism.measure.specialisation import certainty
from mechanism.study.d_domains.cheap import cheap_statistics, massive_layers
from mechanism.study.d_domains.driver_tokens import opening_effects
from mechanism.study.d_domains.effects import BatchSweep, Settings
from mechanism.trace import Ablate, expert_means, find_sites
from mechanism.trace.continuation import CleanPass
from mechanism.trace.families import tiny_model
from mechanism.trace.proof import Way, naive_logits, proven

LENGTHS = (20, 20, 14, 9)
WHOLE = Way({}, False, {})


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.randint(3, 97, (4, 20), generator=torch.Generator().manual_seed(0))
    return ids, (torch.arange(20) < torch.tensor(LENGTHS)[:, None]).long()


def swept(model, modes=("zero",), restart=True, **more):
    ids, mask = batch()
    means = expert_means(model, [{"input_ids": ids, "attention_mask": mask}]) if "mean" in modes else None
    way = proven(model, ids, mask, modes, means, 1) if restart else WHOLE
    return BatchSweep(model, ids, mask, Settings(modes, more.pop("means", means), way, fold=64, **more)).run()


@pytest.mark.parametrize(
    ("family", "modes"),
    [("mixtral", ("zero", "reroute", "mean")), ("granitemoe", ("zero",)), ("gemma4_text", ("zero", "reroute"))],
)
def test_restarts_equal_whole_passes(family, modes):
    model = tiny_model(family)
    fast, slow = swept(model, modes), swept(model, modes, restart=False)
    for name in ("kl", "own", "loss"):
        np.testing.assert_allclose(getattr(fast, name), getattr(slow, name), rtol=1e-4, atol=3e-5)
    assert (fast.selections == slow.selections).all()
    assert fast.tokens.tolist() == [n - 1 for n in LENGTHS]
    assert fast.targets.tolist() == [n - 2 for n in LENGTHS]
    assert slow.kl.max() > 0.1


def whole_pass_kl(model, edit: Ablate, means, ids: torch.Tensor) -> np.ndarray:
    """`(sequence,)` divergence summed over text, from two plain passes."""
    mask = batch()[1]
    with torch.no_grad():
        old = model(input_ids=ids, attention_mask=mask, use_cache=False).logits.double().log_softmax(-1)
    new = naive_logits(model, ids, mask, edit, means).double().log_softmax(-1)
    return np.asarray(((old.exp() * (old - new)).sum(-1) * mask)[:, 1:].sum(1))


@pytest.mark.parametrize("restart", [True, False])
def test_the_token_that_opens_a_sequence_is_left_alone(restart):
    """Also where it weighs more than all text: here it adds a vector to every later token that only it can write."""
    model, (ids, mask) = tiny_model("mixtral"), batch()
    ids[:, 0] = 3
    with torch.no_grad():
        model.model.embed_tokens.weight[3] *= 30
    modes = ("zero", "reroute", "mean")
    means = expert_means(model, [{"input_ids": ids, "attention_mask": mask}])
    way = proven(model, ids, mask, modes, means, 1) if restart else WHOLE
    found = BatchSweep(model, ids, mask, Settings(modes, means, way)).run()
    opening = CleanPass(model, ids, mask, find_sites(model)).index[1][0, 0].tolist()
    for mode, kl in zip(modes, found.kl, strict=True):
        for expert in range(8):
            text, whole = (
                whole_pass_kl(model, Ablate(((1, expert),), mode=mode, positions=own), means, ids)  # type: ignore[arg-type]
                for own in ((1, None), None)
            )
            used = found.selections[:, 1, expert] > 0
            np.testing.assert_allclose(kl[used, 1, expert], text[used], rtol=1e-3, atol=1e-4)
            assert (np.abs(kl[~used, 1, expert]) <= (0 if restart else 1e-9)).all()
            assert np.allclose(text, whole, atol=1e-4) == (expert not in opening)


def test_shards_of_layers_and_kept_tokens_are_the_whole():
    model = tiny_model("mixtral")
    whole = swept(model, keep=True)
    parts = [swept(model, layers=layers) for layers in ((0, 1), (2, 3))]
    np.testing.assert_array_equal(whole.kl, np.concatenate([part.kl for part in parts], 2))
    assert whole.token_kl is not None
    np.testing.assert_allclose(np.nansum(whole.token_kl[:, :, 1:], 2), whole.kl, rtol=1e-4, atol=1e-6)
    assert np.isnan(whole.token_kl[0, 3, 9:]).all()


def test_llama4_runs_by_whole_passes_only():
    found = swept(tiny_model("llama4_text"))
    assert found.kl.max() > 0
    assert (found.kl[0][found.selections == 0] >= 0).all()


def test_one_expert_alone_drives():
    model = tiny_model("mixtral")
    with torch.no_grad():
        for layer, block in enumerate(model.model.layers):
            kept = block.mlp.experts.down_proj[5].clone()
            block.mlp.experts.down_proj.zero_()
            if layer == 2:
                block.mlp.experts.down_proj[5] = kept
    found = swept(model, keep=True)
    effect = found.kl[0].sum(0)
    assert (top_experts(effect, 1) == (np.arange(32).reshape(4, 8) == 2 * 8 + 5)).all()
    assert (np.delete(effect.ravel(), 21) < 1e-9).all()
    assert gini(np.clip(effect, 0, None).ravel()) > 0.96
    assert found.token_kl is not None
    assert ((found.kl[0, :, 2, 5] > 0) == (np.nan_to_num(found.token_kl[0, :, :, 2, 5]) > 0).any(1)).all()
    assert (found.kl[0, :, 2, 5] > 0).sum() >= 2
    assert (found.own[0] <= found.kl[0]).all()
    assert found.own[0, :, 2, 5].max() > 0


def test_an_expert_decides_a_class_of_tokens():
    """In the last layer expert 3 serves tokens from 50 on, and no others; it is theirs alone."""
    model, (ids, _) = tiny_model("mixtral"), batch()
    with torch.no_grad():
        model.model.embed_tokens.weight[:, 0] = torch.where(torch.arange(97) >= 50, 40.0, -40.0)
        gate = model.model.layers[3].mlp.gate.weight
        gate[:, 0] = 0
        gate[3] = 0
        gate[3, 0] = 50.0
        gate[3, 0] *= model.model.layers[3].post_attention_layernorm.weight[0].sign()
    found = swept(model, keep=True)
    assert found.token_kl is not None
    mine = (ids >= 50).numpy() & (np.arange(20) > 0)
    values = found.token_kl[0, :, :, 3, 3]
    assert (np.nan_to_num(values)[~mine] == 0).all()
    assert (values[mine & ~np.isnan(values)] > 0).all()
    assert found.own[0, :, 3, 3] == pytest.approx(found.kl[0, :, 3, 3])


def test_a_router_that_ignores_its_input_leaves_no_specialists():
    model = tiny_model("mixtral")
    with torch.no_grad():
        for block in model.model.layers:
            block.mlp.gate.weight.zero_()
    found = swept(model)
    used = found.selections.sum(0) > 0
    assert (used.sum(1) == 2).all()
    assert (found.kl[0].sum(0)[~used] == 0).all(), "unused experts have no effect at all"
    assert (found.kl[0].sum(0)[used] > 0).all()
    documents = Documents(np.array(["a", "a", "b", "b"]), found.tokens, found.selections)
    assert np.nan_to_num(certainty(Domains(documents))).max() < 1e-9


def test_a_failed_ablation_is_not_a_number_and_not_a_zero():
    model, (ids, mask) = tiny_model("mixtral"), batch()
    means = expert_means(model, [{"input_ids": ids, "attention_mask": mask}])
    means[1][2] = 1e32

    def overflow(module: torch.nn.Module, args: tuple) -> tuple:
        sane = (args[0].abs() < 1e30).all(-1, keepdim=True)
        return (args[0].where(sane, torch.nan), *args[1:])

    model.model.layers[3].register_forward_pre_hook(overflow)
    for restart in (True, False):
        found = swept(model, ("zero", "mean"), restart=False, means=means) if not restart else BatchSweep(
            model, ids, mask, Settings(("zero", "mean"), means, Way({"zero": "added", "mean": "added"}, True, {}))
        ).run()  # fmt: skip
        assert np.isfinite(found.kl[0]).all()
        used = found.selections[:, 1, 2] > 0
        assert np.isnan(found.kl[1, used, 1, 2]).all()
        assert np.isnan(found.kl[1]).sum(0).astype(bool).sum() == 1
        effects = Effects(found.kl[1], found.tokens, np.repeat("a", 4), np.repeat("a", 4), np.arange(4).astype(str))
        with pytest.raises(ValueError, match="1 effects are not numbers"):
            top_experts(effects.mean(), 3)


def test_cheap_statistics_are_what_they_say():
    model, (ids, _) = tiny_model("mixtral"), batch()
    sequences = [row[:n] for row, n in zip(ids.tolist(), LENGTHS, strict=True)]
    cheap = cheap_statistics(model, sequences, 0, batch_tokens=40, samples=8)
    found = swept(model)
    assert (cheap["selections"] == found.selections).all()
    np.testing.assert_allclose(cheap["weight"].sum(2), np.repeat(found.tokens[:, None], 4, 1), rtol=1e-5)
    np.testing.assert_allclose(cheap["probability"].sum(2), np.repeat(found.tokens[:, None], 4, 1), rtol=1e-5)
    assert ((cheap["peak"] > 0) == (cheap["selections"] > 0)).all()
    effect = found.kl[0].sum(0).ravel()
    order = np.argsort(np.argsort(effect))
    for name, least in (("relative", 0.7), ("fisher", 0.6), ("attribution", 0.5)):
        rank = np.argsort(np.argsort(cheap[name].sum(0).ravel()))
        assert np.corrcoef(order, rank)[0, 1] > least, name


def test_massive_activations_are_found_where_they_form():
    model, (ids, _) = tiny_model("mixtral"), batch()
    assert massive_layers(model, ids.tolist(), 0).tolist() == [False] * 4
    with torch.no_grad():
        model.model.layers[1].mlp.experts.down_proj[:, 7] *= 1e5
    assert massive_layers(model, ids.tolist(), 0).tolist() == [False, True, False, False]


def test_what_ablating_the_opening_token_would_do():
    model, (ids, mask) = tiny_model("mixtral"), batch()
    ids[:, 0] = 3
    sequences = [row[:n] for row, n in zip(ids.tolist(), LENGTHS, strict=True)]
    found = opening_effects(model, sequences, 0, count=3)
    clean = CleanPass(model, ids, mask, find_sites(model))
    assert len(found) == 3
    for row in found.itertuples():
        assert row.expert in clean.index[row.layer][0, 0]
        edit = Ablate(((row.layer, row.expert),), positions=(0, 1))
        wanted = whole_pass_kl(model, edit, None, ids).sum() / (sum(LENGTHS) - len(LENGTHS))
        assert row.opening == pytest.approx(wanted, rel=1e-3)
    swept_too = BatchSweep(model, ids, mask, Settings()).run().kl[0].sum(0) / (sum(LENGTHS) - len(LENGTHS))
    assert found["text"].tolist() == pytest.approx(swept_too[found["layer"], found["expert"]].tolist(), rel=1e-3)
    assert found["opening"].is_monotonic_decreasing
