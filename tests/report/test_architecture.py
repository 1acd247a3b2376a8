from matplotlib import pyplot as plt

from mechanism.nn.feedforward import DenseConfig
from mechanism.nn.moe import SparseMoEConfig
from mechanism.nn.multihead import MultiHeadMoEConfig
from mechanism.report.architecture import draw_layer, stages

HEADS = MultiHeadMoEConfig(12, experts=5, top_k=2, width=7, heads=3, shared_width=4)


def test_boxes_hold_the_shapes_of_the_built_layer():
    told = [stage.text for stage in stages(HEADS)]
    assert told[1] == "head 12×12"
    assert told[2] == "split: 3 sub-tokens, 4"
    assert told[3] == "router 5×4\ntop 2 of 5"
    assert told[4] == "experts\nup 5×14×4\ndown 5×4×7"
    assert "merge 12×12" in told
    assert [s.kind for s in stages(DenseConfig(12, 8))] == ["rows", "experts", "rows"]
    sparse = stages(SparseMoEConfig(12, experts=5, top_k=2, width=7))
    assert [s.kind for s in sparse] == ["rows", "router", "experts", "rows"]


def test_a_layer_is_drawn_with_a_box_for_each_stage():
    figure, axis = plt.subplots()
    draw_layer(axis, HEADS, "three heads")
    assert len(axis.patches) == len(stages(HEADS))
    plt.close(figure)
