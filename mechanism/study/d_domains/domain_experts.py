"""Which experts serve which domain, and whether it is the domain or the language: notebook 20 and claim D1."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import xarray as xr
from scipy.stats import spearmanr
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ...corpus.library import DOMAINS, PARALLEL
from ...corpus.store import Corpus
from ...measure.agreement import Agreement
from ...measure.crossed import Components, CrossedVariance
from ...measure.documents import Documents
from ...measure.overlap import hypergeometric_overlap
from ...measure.specialists import Specialists, SpecialistTest
from ...models.passes import room
from .domain_passes import route
from .domain_text import Piece, common_language, domain_pieces, load_domains, parallel_pieces, pieces

ENGLISH = ("religion", "tech", *DOMAINS)
Progress = Callable[[str], None]


@dataclass(frozen=True)
class DomainConfig:
    """What is observed.

    Attributes:
        domains: corpora, by name, folder, table or `hub:NAME`, each a domain.
        languages: codes of the crossed design; all that its corpora have in common without any.
        max_segments: pieces of text (about 800 characters) per domain and language.
        split: of the corpora.
    """

    domains: tuple[str, ...] = ENGLISH
    languages: tuple[str, ...] | None = None
    max_segments: int = 24
    split: str = "test"


@dataclass(frozen=True, eq=False)
class DomainObservation:
    """Routing of documents by domain, in one language.

    Attributes:
        documents: what they ask of the experts; lang: their language; left_out: domains with too little text, and why.
    """

    documents: Documents
    lang: str
    left_out: dict[str, str] = field(default_factory=dict)


def observe(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, config: DomainConfig = DomainConfig()
) -> DomainObservation:
    """Pass the domains' text through the model, all in one language.

    Raises:
        CorpusError: fewer than two domains with enough text, or no common language.
        DenseModelError: the model routes nowhere.
    """
    corpora = load_domains(config.domains, config.languages or ())
    code = common_language(corpora)
    kept, left_out = domain_pieces(corpora, code, config.split, config.max_segments)
    routed = route(model, tokenizer, kept)
    return DomainObservation(routed.documents(routed.rows(code)), code, left_out)


def domain_texts(config: DomainConfig, domains: Sequence[str], count: int = 12) -> dict[str, list[str]]:
    """At most `count` pieces of text of each domain that was observed, all in one language."""
    corpora = load_domains(config.domains, config.languages or ())
    code = common_language(corpora)
    own = {corpus.domain: pieces(corpus, code, config.split, min(count, config.max_segments)) for corpus in corpora}
    return {name: [piece.text for piece in own[name]] for name in domains}


def stability(documents: Documents, test: SpecialistTest) -> pd.Series:
    """Do two halves of the documents name the same experts?

    `spearman` of the scores; `shared` specialists found by both halves, of `first` and `second`, `expected` by chance
    and `p` (hypergeometric, layer by layer); `same_domain`, the share of experts found by either half with one
    strongest domain in both, and its `chance` if domains were dealt anew to each half.
    """
    first, second = (test(half).experts for half in documents.halves())
    a, b = (one["specialist"].values for one in (first, second))
    found = hypergeometric_overlap(a, b)
    either = (a | b) & ~(first["unused"].values | second["unused"].values)
    domains = [one["domain"].values[either] for one in (first, second)]
    shares = [
        np.array([(own == name).mean() for name in documents.names]) if either.any() else np.nan for own in domains
    ]
    return pd.Series({
        "spearman": float(spearmanr(first["score"].values.ravel(), second["score"].values.ravel()).statistic),
        "first": int(a.sum()), "second": int(b.sum()), "shared": found.shared, "expected": found.expected,
        "p": found.p_more, "same_domain": float((domains[0] == domains[1]).mean()) if either.any() else np.nan,
        "chance": float(np.sum(shares[0] * shares[1])),
    })  # fmt: skip


def expert_table(found: Specialists, measures: xr.Dataset, count: int = 12) -> pd.DataFrame:
    """The domain experts of the largest score, each with every measure in its domain.

    Args:
        measures: of `domain_table`.
    """
    experts = found.experts.to_dataframe().reset_index()
    best = experts[experts["specialist"]].nlargest(count, "score")
    rows = []
    for row in best.to_dict("records"):
        own = measures.sel(layer=row["layer"], expert=row["expert"], domain=row["domain"])
        values = {
            name: own[name].item() for name in measures.data_vars if name not in {"unused", "tokens", "documents"}
        }
        rows.append({k: row[k] for k in ("layer", "expert", "domain", "q", "strong")} | values)
    return pd.DataFrame(rows)


def crossed_languages(corpora: Sequence[Corpus], wanted: Sequence[str] | None = None) -> list[str]:
    """Languages that all corpora have, in the order of the first, the wanted ones only."""
    return [
        code
        for code in corpora[0].languages
        if all(code in corpus.languages for corpus in corpora) and (wanted is None or code in wanted)
    ]


def observe_crossed(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    config: DomainConfig = DomainConfig(domains=PARALLEL),
    progress: Progress = lambda line: None,
) -> xr.Dataset | None:
    """Activation rates `rate` of the same documents of several domains in several languages,
    `(document, lang, layer, expert)`, with `domain` and `tokens` of each document; None where the domains have fewer
    than two languages, or two documents, in common. Documents are cut behind the same segment in every language, such
    that each is read to its end; those that cannot be are left out, and counted in the attribute `left_out` by domain.

    Raises:
        CorpusError: fewer than two domains; DenseModelError: the model routes nowhere.
    """
    corpora = load_domains(config.domains, config.languages or ())
    codes = crossed_languages(corpora, config.languages)
    if len(codes) < 2:
        return None
    most = room(model)

    def fits(texts: list[str]) -> bool:
        return max(map(len, tokenizer(texts, add_special_tokens=False)["input_ids"])) <= most

    def cut(read: Callable[[list[str]], bool]) -> list[list[Piece]]:
        return [parallel_pieces(corpus, codes, config.split, config.max_segments, read) for corpus in corpora]

    texts = cut(fits)
    lost = [(len(every) - len(own)) // len(codes) for every, own in zip(cut(lambda texts: True), texts, strict=True)]
    texts = [own for own in texts if len(own) >= 2 * len(codes)]
    if len(texts) < 2:
        return None
    progress(f"{len(codes)} languages x {len(texts)} domains")
    routed = route(model, tokenizer, [piece for own in texts for piece in own], contributions=False)
    keys = list(dict.fromkeys((domain, document) for domain, _, document in routed.keys))
    at = {key: i for i, key in enumerate(routed.keys)}
    order = np.array([[at[domain, code, document] for code in codes] for domain, document in keys])
    rate = routed.sums["selections"] / routed.tokens[:, None, None]
    return xr.Dataset(
        {
            "rate": (("document", "lang", "layer", "expert"), rate[order]),
            "tokens": (("document", "lang"), routed.tokens[order]),
        },
        coords={
            "domain": ("document", [domain for domain, _ in keys]), "lang": codes, "layer": list(routed.layers),
            "expert": np.arange(rate.shape[2]),
        },
        attrs={"left_out": json.dumps({c.domain: n for c, n in zip(corpora, lost, strict=True) if n})},
    )  # fmt: skip


def decompose(found: xr.Dataset, test: CrossedVariance) -> pd.DataFrame:
    """Variance components of each layer's rates, summed over its experts, with `p_domain` and `p_language`."""
    result = test(found["rate"].values, found["domain"].values)
    summed = {name: getattr(result.components, name).sum(-1) for name in Components._fields}
    table = pd.DataFrame(summed, index=pd.Index(found["layer"].values, name="layer"))
    return table.assign(p_domain=result.p_domain, p_language=result.p_language)


def agree(found: xr.Dataset, measure: Agreement) -> pd.DataFrame:
    """Agreement of each language's domain experts with those of the first language, see `Agreement`; one row each,
    the first language as the ceiling."""
    values = measure(found["rate"].values, found["domain"].values)
    return pd.DataFrame(values._asdict(), index=pd.Index(found["lang"].values, name="lang"))
