from matplotlib import pyplot as plt

from mechanism.nn.feedforward import DenseConfig
from mechanism.nn.moe import SparseMoEConfig
from mechanism.nn.multihead import MultiHeadMoEConfig
from mechanism.report.architecture import draw_layers, stages

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


def test_layers_stand_side_by_side_with_a_box_for_each_stage():
    sparse = SparseMoEConfig(12, experts=5, top_k=2, width=7)
    figure = draw_layers({"three heads": HEADS, "sparse": sparse})
    assert [axis.get_title() for axis in figure.axes] == ["three heads", "sparse"]
    assert [len(axis.patches) for axis in figure.axes] == [len(stages(HEADS)), len(stages(sparse))]
    assert [text.get_text() for text in figure.axes[1].texts if text.get_text()] == [s.text for s in stages(sparse)]
    plt.close(figure)
