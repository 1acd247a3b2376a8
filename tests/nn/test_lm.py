import pytest

from mechanism.nn.lm import LMConfig, routers


@pytest.mark.parametrize(
    "config", [LMConfig(layers=2), LMConfig(layers=3, experts=4, top_k=1), LMConfig(layers=2, experts=0)]
)
def test_parameter_count_is_the_built_model(config):
    model = config.build()
    assert config.parameters() == sum(p.numel() for p in model.parameters())
    assert len(routers(model)) == (config.layers if config.experts else 0)


def test_dense_twin_has_the_active_parameters_without_the_routers():
    sparse = LMConfig()
    dense = LMConfig(experts=0)
    router = sparse.layers * sparse.experts * sparse.hidden
    assert dense.parameters() == sparse.active_parameters() - router
