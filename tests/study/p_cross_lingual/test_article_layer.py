"""The article's layer fails as told, the corrected one is a sparse layer."""

import pytest
import torch

from mechanism.study.p_cross_lingual.article_layer import AddedGate, CorrectedLayer, LayerTrial, silent_broadcast

TRIAL = LayerTrial()


def test_the_layer_as_described_fails_at_the_gate_and_then_at_the_sum():
    found = TRIAL().set_index("layer")
    assert "Tensors must have same number of dimensions" in found.loc["as described", "outcome"]
    assert "must match" in found.loc["its gate mended", "outcome"]
    assert found.loc["corrected", "outcome"] == "runs, 3x5x64"
    assert TRIAL.properties() == {"runs": False, "sparse": False}
    assert TRIAL.expert_calls() == (8, 2)


def test_cost_is_what_the_counter_sees():
    counted = TRIAL().set_index("layer").loc["corrected", "FLOPs a token"]
    cost = TRIAL.cost().set_index("languages")
    assert counted == cost.loc[8, "corrected"]
    assert cost.loc[100, "as described"] / cost.loc[100, "corrected"] > 10


def test_the_corrected_layer_is_the_weighted_sum_of_its_best_experts():
    layer = CorrectedLayer(8, 4).double()
    x, lang = torch.randn(2, 3, 8, dtype=torch.double), torch.tensor([1, 3])
    out = layer(x, lang)
    probability = layer.gate(x, lang)
    for b, s in ((0, 2), (1, 0)):
        best = probability[b, s].argsort(descending=True)[:2]
        weights = probability[b, s, best] / probability[b, s, best].sum()
        wanted = sum(
            w * layer.experts.down_proj[e] @ torch.relu(layer.experts.up_proj[e] @ x[b, s])
            for w, e in zip(weights, best, strict=True)
        )
        torch.testing.assert_close(out[b, s], wanted)


def test_the_added_gate_mixes_up_languages_in_silence_on_a_square_batch_and_fails_otherwise():
    ran, difference = silent_broadcast()
    assert ran
    assert difference > 0.01
    with pytest.raises(RuntimeError, match="must match"):
        AddedGate(8, 3, 4)(torch.randn(2, 5, 8), torch.tensor([0, 1]))
