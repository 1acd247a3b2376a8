"""What the corpora hold: sizes, shares, samples, and how the tokenizer cuts each language."""

import pandas as pd
from transformers import PreTrainedTokenizerBase

from ...corpus.build import read_manifest
from ...corpus.languages import LANGUAGES
from ...corpus.library import DOMAINS, PARALLEL, ROOT, committed, training_budgets, training_rows
from ...corpus.store import SPLITS, Corpus
from ...corpus.text import even


def sizes() -> pd.DataFrame:
    """One row per corpus, language and split: `segments`, `chars` and `bytes` (UTF-8), with `script`, `family` and
    `resource` of the language."""
    rows = []
    for name in (*PARALLEL, *DOMAINS):
        corpus = committed(name)
        for code in corpus.languages:
            for split in SPLITS:
                texts = [t for t in corpus.texts(code, corpus.split(split)) if t]
                rows.append({"corpus": name, "lang": code, **_traits(code), "split": split, **_size(texts)})
    return pd.DataFrame(rows)


def training_sizes() -> pd.DataFrame:
    """One row per language and corpus that the embedded model may read, within the language's budget."""
    rows = []
    for code in LANGUAGES:
        for name, budget in training_budgets(code).items() if LANGUAGES[code].train_chars != 0 else ():
            corpus = committed(name)
            texts = corpus.texts(code, training_rows(corpus, code, budget))
            rows.append({"corpus": name, "lang": code, **_traits(code), **_size(texts)})
    return pd.DataFrame(rows)


def _traits(code: str) -> dict[str, str]:
    language = LANGUAGES[code]
    return {"script": language.script, "family": language.family, "resource": language.resource}


def _size(texts: list[str]) -> dict[str, int]:
    encoded = sum(len(text.encode()) for text in texts)
    return {"segments": len(texts), "chars": sum(map(len, texts)), "bytes": encoded}


def samples(corpus: Corpus, code: str) -> list[str]:
    """Three evenly spaced lines of a corpus in a language, none a test line where there is another split."""
    split = "train" if corpus.split("train") else "test"
    texts = [text for text in corpus.texts(code, corpus.split(split)) if text]
    return even(texts, 5)[1:-1]


def fertility(tokenizer: PreTrainedTokenizerBase) -> pd.DataFrame:
    """Per language of the declaration of human rights: characters and bytes per token, and tokens per token of the
    English of the same segments."""
    corpus = committed("udhr")
    rows = []
    for code in corpus.languages:
        shared = [i for i in range(len(corpus.rows)) if corpus.columns[code][i] and corpus.columns["en"][i]]
        own, english = corpus.texts(code, shared), corpus.texts("en", shared)
        tokens, size = _tokens(tokenizer, own), _size(own)
        row = {"lang": code, "chars_per_token": size["chars"] / tokens, "bytes_per_token": size["bytes"] / tokens}
        rows.append({**row, "tokens_over_english": tokens / _tokens(tokenizer, english)})
    return pd.DataFrame(rows)


def _tokens(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> int:
    return sum(map(len, tokenizer(texts, add_special_tokens=False)["input_ids"]))


def sources() -> pd.DataFrame:
    """Where each corpus comes from: package, version, licence, edition and compressed size."""
    rows = []
    for name, entry in read_manifest(ROOT).items():
        packages = sorted({f"{p['registry']}: {p['name']} {p['version']}" for p in entry["packages"].values()})
        shown = packages if len(packages) <= 2 else [packages[0], f"and {len(packages) - 1} more of its kind"]
        size = sum(file["bytes"] for file in entry["files"].values())
        row = {"corpus": name, "licence": entry["licence"], "packages": "; ".join(shown)}
        rows.append({**row, "segments": entry["segments"], "compressed MB": round(size / 1e6, 2)})
    return pd.DataFrame(rows)
