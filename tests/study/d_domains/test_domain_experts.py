from dataclasses import replace

import numpy as np
import pytest
import torch

from mechanism.corpus.store import Corpus, CorpusError, Segment
from mechanism.measure.crossed import CrossedVariance
from mechanism.measure.documents import Domains
from mechanism.measure.domain_inference import DocumentBootstrap, LabelNull
from mechanism.measure.domain_table import domain_table
from mechanism.measure.specialisation import activation_rate
from mechanism.measure.specialists import SpecialistTest
from mechanism.models.load import load_model
from mechanism.study.d_domains import domain_experts as domain_routing
from mechanism.study.d_domains.domain_experts import DomainConfig, crossed_languages, expert_table, observe, stability
from mechanism.study.d_domains.domain_passes import Routed, route
from mechanism.study.d_domains.domain_text import (
    Piece,
    common_language,
    domain_pieces,
    load_domains,
    parallel_pieces,
    pieces,
)
from mechanism.trace import attach, slot_outputs
from mechanism.trace.contributions import ExpertsInput
from mechanism.trace.families import tiny_model

from .. import planted

specialised = SpecialistTest(null=LabelNull(n_perm=499), bootstrap=DocumentBootstrap(n_boot=100))


def routed(model, count: int = 30) -> Routed:
    corpora = planted.corpora(documents=24)
    return route(model, planted.tokenizer(), domain_pieces(corpora, "en", "test", count)[0])


@pytest.fixture(scope="module")
def served() -> Routed:
    return routed(planted.model("law"))


def test_a_domain_served_by_two_experts_is_recovered(served: Routed):
    documents = served.documents(served.rows("en"))
    found = specialised(documents)
    own = found.experts.sel(layer=planted.LAYER, expert=list(planted.SERVING))
    assert own["strong"].all()
    assert own["domain"].values.tolist() == ["law", "law"]
    assert (own["lift"] > 2.9).all()
    best = found.experts["score"].values.argsort(axis=None)[-2:]
    assert set(best.tolist()) == {planted.LAYER * 8 + e for e in planted.SERVING}
    rates = activation_rate(Domains(documents))[planted.LAYER]
    law = documents.names.tolist().index("law")
    assert rates[:2, law] == pytest.approx(0.5, abs=0.05)
    assert (np.delete(rates[:2], law, 1) == 0).all()


def test_no_specialist_in_models_with_blind_routers():
    """Random routers that never see their input: no more than the false discoveries that the rate allows."""
    found = [specialised((own := routed(planted.blind(seed))).documents(own.rows("en"))) for seed in range(5)]
    assert np.mean([one.share for one in found]) <= 0.05
    assert all(one.strong.estimate == 0 for one in found)
    assert not any(one.experts["unused"].any() for one in found)


def test_halves_of_the_documents_find_the_same_experts(served: Routed):
    found = stability(served.documents(served.rows("en")), specialised)
    assert found["shared"] >= 2
    assert found["spearman"] > 0.5
    assert found["same_domain"] > found["chance"]


def test_table_of_domain_experts_has_every_measure(served: Routed):
    documents = served.documents(served.rows("en"))
    table = expert_table(specialised(documents), domain_table(documents), count=2)
    assert {"cwas", "gate_score", "expert_activity", "peak", "token_ratio", "mutual_information"} <= set(table)
    assert table["domain"].tolist() == ["law", "law"]
    assert (table["layer"] == planted.LAYER).all()


@torch.no_grad()
def test_sums_are_those_of_single_passes():
    """Padded batches, two pieces a document, and what single experts give, against one sequence at a time."""
    model, tokenizer = load_model("tiny", "cpu")
    texts = ["In the beginning.", "Click OK to open the window, then close it again.", "Öffnet das Fenster."]
    made = [Piece(domain, "en", document, text) for domain, document, text in zip("aab", "xxy", texts, strict=True)]
    found = route(model, tokenizer, made)
    assert found.keys == (("a", "en", "x"), ("b", "en", "y"))
    expected = {name: np.zeros_like(values) for name, values in found.sums.items()}
    for row, text in zip((0, 0, 1), texts, strict=True):
        ids = torch.tensor([[tokenizer.eos_token_id, *tokenizer(text)["input_ids"]]])
        with attach(model) as trace, torch.no_grad():
            inputs = [ExpertsInput(site) for site in trace.sites]
            model(input_ids=ids)
        for layer, (site, seen) in enumerate(zip(trace.sites, inputs, strict=True)):
            seen.remove()
            outputs = slot_outputs(site, seen.hidden, seen.index)
            for token in range(1, ids.shape[1]):
                for slot in range(site.top_k):
                    at = row, layer, int(seen.index[token, slot])
                    weight, output = float(seen.weight[token, slot]), outputs[token, slot]
                    expected["selections"][at] += 1
                    expected["weight"][at] += weight
                    expected["activity"][at] += abs(weight) * float(output.norm())
                    expected["peak"][at] = max(expected["peak"][at], float(output.abs().max()))
    for name, values in expected.items():
        np.testing.assert_allclose(found.sums[name], values, rtol=1e-4, atol=1e-5, err_msg=name)
    assert found.tokens.tolist() == [
        sum(len(tokenizer(t)["input_ids"]) for t in texts[:2]),
        len(tokenizer(texts[2])["input_ids"]),
    ]


@pytest.mark.parametrize(("family", "contributions"), [("deepseek_v3", True), ("jetmoe", False)])
def test_other_families(family, contributions):
    model = tiny_model(family)
    found = routed(model, count=6)
    assert ("activity" in found.sums) == contributions
    top_k = found.sums["selections"].sum(-1) / found.tokens[:, None]
    assert (top_k == top_k[0, 0]).all()
    assert np.isfinite(found.sums["weight"]).all()


def test_crossed_design_of_a_model_that_reads_words_alike_in_both_languages(monkeypatch):
    monkeypatch.setattr(domain_routing, "load_domains", lambda names, languages: planted.corpora(documents=16))
    found = domain_routing.observe_crossed(
        planted.model("law"), planted.tokenizer(), DomainConfig(domains=("any", "thing"))
    )
    assert found is not None
    assert dict(found.sizes) == {"document": 24, "lang": 2, "layer": 2, "expert": 8}
    assert (found["rate"].sel(lang="en") == found["rate"].sel(lang="xx")).all()
    table = domain_routing.decompose(found, CrossedVariance(n_perm=199))
    assert table.loc[planted.LAYER, "p_domain"] < 0.01
    assert (table["p_language"] > 0.5).all()
    assert table.loc[planted.LAYER, "domain"] > 10 * abs(table.loc[planted.LAYER, "language"])


def test_crossed_design_needs_two_languages():
    assert (
        domain_routing.observe_crossed(
            planted.model("law"), planted.tokenizer(), DomainConfig(domains=("code", "maths"))
        )
        is None
    )
    assert crossed_languages(planted.corpora(), ["xx"]) == ["xx"]


def test_observation_of_the_committed_domains():
    model, tokenizer = load_model("tiny", "cpu")
    found = observe(model, tokenizer, DomainConfig(domains=("religion", "tech", "code"), max_segments=4))
    assert found.documents.names.tolist() == ["code", "religion", "tech"]
    assert found.lang == "en"
    assert found.documents.activity is not None


def test_one_domain_and_too_little_text():
    with pytest.raises(CorpusError, match="at least two corpora"):
        load_domains(["tech"])
    with pytest.raises(CorpusError, match="same domain"):
        load_domains(["tech", "tech"])
    corpora = planted.corpora()
    short = replace(corpora[0], rows=[replace(r, split="test") for r in corpora[0].rows[:6]], columns={"en": ["a"] * 6})
    kept, left_out = domain_pieces([short, *corpora[1:]], "en", "test", 8)
    assert {piece.domain for piece in kept} == {"law", "news"}
    assert left_out == {"code": "11 characters in 1 documents"}
    with pytest.raises(CorpusError, match="code has 11 characters"):
        domain_pieces([short, corpora[1]], "en", "test", 8)
    with pytest.raises(CorpusError, match="no language in common"):
        common_language([corpora[0], replace(corpora[1], columns={"yy": corpora[1].columns["en"]})])


def corpus(lengths: dict[str, list[int]], joiner: str = " ") -> Corpus:
    """Documents of segments with so many characters."""
    rows = [Segment(str(i), group, "test") for group, own in lengths.items() for i in range(len(own))]
    texts = [chr(97 + i % 26) * n for i, n in enumerate(n for own in lengths.values() for n in own)]
    return Corpus("c", "c", rows, {"en": texts, "xx": [t.upper() for t in texts]}, joiner)


def test_pieces_are_spread_evenly_over_documents():
    found = pieces(corpus({"long": [100] * 40, "short": [100] * 4, "mid": [100] * 20}), "en", "test", 6, chars=200)
    assert [piece.document for piece in found] == ["long"] * 2 + ["short"] * 2 + ["mid"] * 2
    assert all(len(piece.text) == 200 for piece in found)
    assert found[0].text != found[1].text
    few = pieces(corpus({name: [300] for name in "abcdefgh"}), "en", "test", 3, chars=200)
    assert [piece.document for piece in few] == ["a", "e", "h"]


def test_a_single_document_gives_a_document_per_piece():
    found = pieces(corpus({"all": [100] * 10}), "en", "test", 4, chars=200)
    assert [piece.document for piece in found] == ["all/0", "all/1", "all/3", "all/4"]
    assert pieces(corpus({"all": [100]}), "en", "dev", 4) == []


def test_parallel_pieces_are_the_same_segments():
    made = corpus({"a": [100] * 10, "b": [500, 500], "c": [10]})
    made.columns["xx"][0] = ""
    found = parallel_pieces(made, ["en", "xx"], "test", 3, lambda texts: True, chars=300)
    assert [(p.document, p.lang) for p in found] == [(d, c) for d in "abc" for c in ("en", "xx")]
    for ours, theirs in zip(found[::2], found[1::2], strict=True):
        assert ours.text.upper() == theirs.text
    assert [len(p.text) for p in found[::2]] == [302, 500, 10]
    assert "a" not in found[0].text


def test_parallel_pieces_are_cut_at_the_same_place_where_a_language_takes_more_room():
    """One language takes three times the room: segments are given up in all; a document that never fits is left out."""
    made = corpus({"a": [100] * 10, "b": [500, 500], "c": [10]})
    made.columns["xx"][:] = [3 * text for text in made.columns["xx"]]
    found = parallel_pieces(made, ["en", "xx"], "test", 3, lambda texts: max(map(len, texts)) <= 700, chars=300)
    assert [(p.document, p.lang) for p in found] == [(d, c) for d in "ac" for c in ("en", "xx")]
    assert [len(p.text) for p in found] == [201, 601, 10, 30]
