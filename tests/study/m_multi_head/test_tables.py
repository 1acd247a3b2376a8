"""Records with planted results: the comparisons find them, and claims are judged only on complete blocks."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from mechanism.bench import steps as bench_steps
from mechanism.measure.evidence import Evidence
from mechanism.report.claims import find_claim
from mechanism.report.verdicts import Verdict
from mechanism.study.base import runs as training_runs
from mechanism.study.grids import load_grid
from mechanism.study.m_multi_head import tables as multi_head
from mechanism.study.m_multi_head.claims import claims, parity
from mechanism.study.m_multi_head.source import printed, printed_differences
from mechanism.study.m_multi_head.tables import Experiment, steps_record

GAINS = {"sparse": 0.0, "fine_grained": 0.02, "heads2": 0.05, "heads3": 0.09, "heads2_head": 0.04, "heads2_merge": 0.01}
MORE = {
    ("layers", "sparse_both"): -0.02,
    ("heads", "heads4"): 0.12,
    ("experts13", "sparse"): 0.2,
    ("experts13", "heads2"): 0.3,
}
CORPORA = ("fiction", "tech")
BLOCKS = ("plain", "shared", "bitnet", "ablation")


def plant(run, gain, rng):
    """The record of a run whose loss lies `gain` below 3 nats, with noise of seeds and documents."""
    run.record.mkdir(parents=True)
    tokens = np.random.default_rng(1).integers(200, 400, 40)
    base = np.random.default_rng(2).normal(3, 0.3, 40)
    nll = (base - gain + rng.normal(0, 0.002) + rng.normal(0, 0.01, 40)) * tokens
    table = pd.DataFrame({"corpus": np.repeat(CORPORA, 20), "document": range(40), "tokens": tokens, "nll": nll})
    table.to_csv(run.record / "test.csv", index=False)
    metrics = pd.DataFrame({"step": [10, 20], "tokens": [100, 200], "loss": [4.0, 3.0 - gain], "seconds": 1.0})
    metrics.to_csv(run.record / "metrics.csv", index=False)
    layer = run.train.model.layer
    experts = getattr(layer, "experts", 0)
    counts = np.full((1, experts), 10)
    counts[0, : experts // 2] = 0 if run.variant == "sparse" else 10
    result = {
        "dev": {"loss": run.train.lr}, "step_seconds": 1.0, "flops": 10, "parameters": 7,
        "test": {"loss": 3.0, "tokens": 1}, "layers": [1],
    }  # fmt: skip
    if experts:
        result["selections"] = {corpus: counts.tolist() for corpus in CORPORA}
    (run.record / "result.json").write_text(json.dumps(result))


@pytest.fixture
def grid(tmp_path, monkeypatch):
    monkeypatch.setattr(training_runs, "RUNS", tmp_path)
    found, rng = load_grid("mh_moe"), np.random.default_rng(0)
    for block in BLOCKS:
        for variant in found.blocks[block].variants:
            for run in found.tuning_runs(block, variant):
                plant(run, 0.0, np.random.default_rng(0))
            for run in found.runs(block, variant):
                plant(run, GAINS.get(variant, -0.1), rng)
    turns = [(seed, turn, variant) for seed in range(5) for turn in range(3) for variant in GAINS]
    table = pd.DataFrame(turns, columns=["seed", "turn", "variant"])
    slow = 1.0 + table["turn"] * table["seed"]  # a machine that slows down for all
    table["seconds"] = slow * np.where(table["variant"] == "heads3", 1.5, 1.0)
    bench_steps.write(found, table.assign(kept_bytes=5.0, threads=2, torch="2.13.0"))
    return found


def evidence(experiment: Experiment) -> dict[str, Evidence]:
    """Claims that have evidence."""
    return {claim: found for claim, found in claims(experiment).items() if isinstance(found, Evidence)}


def verdict(claim, found):
    return find_claim(claim).verdict(found)


def test_planted_differences_are_found_and_judged(grid):
    found = evidence(Experiment(grid))
    assert set(found) == {"M2", "M3", "M4", "M5", "M6", "M7", "M8"}
    assert found["M2"].estimate == pytest.approx(0.03, abs=0.01)  # against the harder baseline
    assert found["M2"].null == pytest.approx(0.05, abs=0.015)
    assert found["M3"].estimate == pytest.approx(0.04, abs=0.01)
    assert found["M6"].estimate == pytest.approx(0.03, abs=0.01)
    assert found["M7"].estimate == pytest.approx(1 - 4 / 7)
    assert found["M8"].estimate == pytest.approx(1.5)
    for claim in ("M4", "M5"):  # the smallest of three gaps, then the next
        assert found[claim].estimate == pytest.approx(0.03, abs=0.01)
        assert found[claim].low <= found[claim].null
    assert [found[c].n for c in ("M2", "M4", "M5", "M6")] == [5, 3, 3, 3]
    assert {verdict(claim, own) for claim, own in found.items()} == {Verdict.REPLICATED}


@pytest.mark.parametrize(
    ("gains", "verdicts"),
    [(dict.fromkeys(GAINS, 0.0), {c: {"refuted", "inconclusive"} for c in ("M2", "M3", "M4", "M5", "M6")}),
     (GAINS | {"heads2": 0.01, "heads2_head": 0.0}, {"M2": {"partly"}, "M3": {"replicated"}, "M6": {"refuted"}}),
     (GAINS | {"heads2": -0.05}, {"M2": {"refuted"}, "M4": {"refuted"}})],
)  # fmt: skip
def test_no_difference_is_not_replicated_and_one_of_two_is_partly(grid, gains, verdicts):
    rng = np.random.default_rng(3)
    for block in BLOCKS:
        for variant in grid.blocks[block].variants:
            for run in grid.runs(block, variant):
                shutil.rmtree(run.record)
                plant(run, gains.get(variant, -0.1), rng)
    found = evidence(Experiment(grid))
    assert all(str(verdict(claim, found[claim])) in allowed for claim, allowed in verdicts.items())


def test_the_printed_layers_have_the_flops_and_about_the_parameters():
    found = parity()
    assert found.estimate == pytest.approx(96 / 93 - 1, abs=0.001)
    assert (found.null, found.n) == (0, 2)
    assert "40 instead of 41.33 and 96 instead of 93.00" in found.note
    assert verdict("M1", found) == Verdict.PARTLY
    assert verdict("M1", Evidence.exact(0.0, 2, 0.0)) == Verdict.REPLICATED
    assert verdict("M1", Evidence.exact(0.0, 2, 0.1)) == Verdict.REFUTED


def test_one_missing_seed_leaves_the_claims_of_its_block_undecided(grid):
    (grid.runs("plain", "heads2")[4].record / "result.json").unlink()
    experiment = Experiment(grid)
    assert set(evidence(experiment)) == {"M4", "M5", "M6"}
    assert "plain 2 heads 4 of 5" in experiment.missing()
    assert "`mechanism train --grid mh_moe` makes the missing runs" in experiment.missing()
    (grid.runs("shared", "sparse")[0].record / "result.json").unlink()
    assert "shared sparse 2 of 3" in Experiment(grid).missing()
    assert experiment.difference(("plain", "heads2"), ("plain", "sparse")).n == 4
    assert claims(experiment)["M2"] == "it needs all runs of plain, see above"


def test_the_note_says_which_comparison_decides_and_what_could_be_seen(grid):
    found = evidence(Experiment(grid))
    gap = np.log(10.74 / 10.70)
    half = (found["M2"].high - found["M2"].low) / 2
    assert found["M2"].note == (
        f"2 heads against fine-grained; the source's gap is {gap:+.4f}, less than half of our interval, {half:.4f}; "
        f"after 1.6 million tokens a run, 0.7 a parameter; the source's models read about 50 billion"
    )
    assert "3 heads against 2 heads; the source's gap is +0.0179, more than" in found["M3"].note


def test_a_run_that_diverged_is_left_out_and_named(grid):
    run = grid.runs("plain", "heads3")[1]
    (run.record / "result.json").write_text(json.dumps({"diverged": "the loss is nan", "dev": {"loss": None}}))
    experiment = Experiment(grid)
    assert "Diverged, and left out: plain heads3 seed 1." in experiment.missing()
    assert grid.complete("plain")
    assert [evidence(experiment)[claim].n for claim in ("M2", "M3", "M7")] == [5, 4, 4]


def test_blocks_without_two_seeds_are_not_judged(grid):
    for run in grid.runs("shared", "heads2")[:2]:
        (run.record / "result.json").write_text(json.dumps({"diverged": "nan", "dev": {"loss": None}}))
    assert claims(Experiment(grid))["M4"] == "1 seeds and 40 documents give no interval: at least two each are needed"


def test_time_is_undecided_before_it_is_measured(grid):
    steps_record(grid).unlink()
    experiment = Experiment(grid)
    assert "`mechanism bench steps --write` does it" in str(claims(experiment)["M8"])
    assert "`mechanism bench steps --write`" in experiment.missing()
    assert experiment.facts("sparse")["seconds"].isna().all()


def test_nothing_made_is_said_and_not_judged(tmp_path, monkeypatch):
    monkeypatch.setattr(training_runs, "RUNS", tmp_path)
    experiment = Experiment(load_grid("mh_moe"))
    assert experiment.empty
    assert evidence(experiment) == {}
    assert experiment.against("plain", "sparse").empty
    assert experiment.shares(("plain", "sparse")) is None
    assert experiment.curves(("plain", "sparse")).empty


def test_order_of_the_interval_that_reaches_highest(grid):
    table = Experiment(grid).order("plain")
    assert list(table.index) == ["heads2 - fine_grained", "heads3 - heads2", "heads2 - sparse"]
    assert table["high"].is_monotonic_decreasing


def test_perplexity_is_that_of_the_planted_losses(grid):
    table = Experiment(grid).against("plain", "sparse")
    assert table["ppl"]["sparse"] == pytest.approx(np.exp(3), rel=0.1)
    assert np.log(table["ppl"]["heads3"] / table["ppl"]["sparse"]) == pytest.approx(table["estimate"]["heads3"])
    assert np.isnan(table["estimate"]["sparse"])
    full = Experiment(grid).against("ablation", "heads2_none", ["heads2_none", "heads2"])
    assert full["n"]["heads2"] == 3  # of five seeds, those that both have


def test_layers_heads_and_experts_are_paired_with_the_sparse_model_beside_them(grid):
    rng, empty = np.random.default_rng(3), Experiment(grid)
    assert empty.added().index.tolist() == ["heads2"], "the others are not made"
    assert empty.by_heads().index.tolist() == [2, 3]
    for (block, variant), gain in MORE.items():
        for run in [*grid.tuning_runs(block, variant), *grid.runs(block, variant)]:
            if not run.done:
                plant(run, gain, rng)
    for run in grid.runs("layers", "sparse_both"):
        plant(run, -0.02, rng)
    found = Experiment(grid)
    assert found.added()["estimate"].to_dict() == pytest.approx({"sparse": 0.02, "heads2": -0.15}, abs=0.01)
    heads = found.by_heads()
    assert heads["estimate"].to_dict() == pytest.approx({1: 0.02, 2: -0.05, 3: -0.09, 4: -0.12}, abs=0.01)
    assert heads["n"].to_dict() == {1: 3, 2: 5, 3: 5, 4: 3}
    assert (heads["low"] < heads["high"]).all()
    experts = found.by_experts()
    assert experts["estimate"].to_dict() == pytest.approx({7: -0.05, 13: -0.1}, abs=0.01)
    assert experts.loc[13, "sparse"] < experts.loc[7, "sparse"]


def test_other_documents_are_refused(grid):
    run = grid.runs("plain", "heads2")[0]
    for own in grid.runs("plain", "heads2"):
        table = pd.read_csv(own.record / "test.csv").assign(document=1)
        table["document"] = range(1, 41)
        table.to_csv(own.record / "test.csv", index=False)
    with pytest.raises(ValueError, match="different documents"):
        Experiment(grid).difference(("plain", "heads2"), ("plain", "sparse"))
    assert run.done


def test_the_source_orders_its_models_as_it_says():
    for block in ("plain", "shared", "bitnet"):
        gaps = printed_differences(block, "sparse").drop(index="dense", errors="ignore")
        assert (gaps.diff().dropna() < 0).all(axis=None)
    cells = printed().loc["ablation"]
    assert (cells.loc["heads2_head"] < cells.loc["heads2_merge"]).all()


def test_parity_reproduces_the_printed_widths_and_not_the_experts():
    table = multi_head.reproduced_entries()
    assert table["equal"].tolist() == [True, True, True, False, True, False]
    assert list(multi_head.parity_table().index) == ["SMoE", "fine-grained SMoE", "MH-MoE, h=2", "MH-MoE, h=3"]


def test_the_table_of_sizes_is_at_parity():
    table = multi_head.grid_table(load_grid("mh_moe"))
    assert table["FLOPs"].nunique() == 1
    assert table["parameters"].drop("dense").nunique() == 1
