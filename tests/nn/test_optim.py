import torch

from mechanism.nn.lm import LMConfig
from mechanism.nn.optim import build_optimisers, orthogonalise


def test_orthogonalised_singular_values_are_near_one():
    torch.manual_seed(0)
    for shape in ((8, 8), (3, 16, 8), (2, 8, 24)):
        values = torch.linalg.svdvals(orthogonalise(torch.randn(shape)))
        assert values.min() > 0.3
        assert values.max() < 1.3


def test_stack_is_orthogonalised_matrix_by_matrix():
    torch.manual_seed(0)
    stack = torch.randn(4, 6, 10)
    torch.testing.assert_close(orthogonalise(stack)[2], orthogonalise(stack[2]))


def test_every_parameter_has_one_optimiser_and_routers_are_not_orthogonalised():
    model = LMConfig(vocab=50, hidden=16, layers=2, heads=1, head_dim=16, experts=4, expert_width=8).build()
    muon, adam = build_optimisers(model, 1e-3, 0.0)
    groups = [{id(p) for g in o.param_groups for p in g["params"]} for o in (muon, adam)]
    assert not groups[0] & groups[1]
    assert groups[0] | groups[1] == {id(p) for p in model.parameters()}
    named = dict(model.named_parameters())
    assert id(named["model.layers.0.mlp.gate.weight"]) in groups[1]
    assert id(named["model.layers.0.mlp.experts.down_proj"]) in groups[0]
