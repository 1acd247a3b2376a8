"""Planted truths: routing whose answer is known."""

from dataclasses import dataclass

import numpy as np
import pytest
from scipy.special import softmax

from mechanism.measure.documents import Documents

LAYERS, EXPERTS, SEGMENTS, TOKENS, WIDTH, TOP_K = 6, 12, 24, 16, 12, 2


@dataclass
class Planted:
    """Tokens of parallel segments sent through linear routers.

    `probs` `(segment, token, layer, expert)`, `index` `(segment, token, layer, slot)` and `hidden`
    `(segment, layer, d)`, each by language.
    """

    probs: dict[str, np.ndarray]
    index: dict[str, np.ndarray]
    hidden: dict[str, np.ndarray]


@pytest.fixture(scope="session")
def planted() -> Planted:
    """A hidden state is what the sentence means, the same in every language, plus a language's own direction.

    `sister` has a direction of its own in outer layers and none in the middle ones, as if it shared experts with `en`
    there; `stranger` and `cousin` have one common direction in every layer.
    """
    rng = np.random.default_rng(0)
    meaning = rng.normal(size=(SEGMENTS, 1, 1, WIDTH)) + rng.normal(size=(SEGMENTS, TOKENS, 1, WIDTH))
    routers = rng.normal(size=(LAYERS, WIDTH, EXPERTS)) / np.sqrt(WIDTH)
    own, foreign = rng.normal(size=(2, LAYERS, WIDTH))
    middle = np.array([1, 1, 0, 0, 1, 1])[:, None]
    shifts = {"en": 0 * own, "sister": 2 * middle * own, "stranger": 3 * foreign, "cousin": 3.2 * foreign}
    found = Planted({}, {}, {})
    for code, shift in shifts.items():
        hidden = meaning + shift + 0.3 * rng.normal(size=(SEGMENTS, TOKENS, LAYERS, WIDTH))
        logits = np.einsum("btld,lde->btle", hidden, routers)
        found.probs[code], found.hidden[code] = softmax(logits, -1), hidden.mean(1)
        found.index[code] = np.argsort(-logits, -1)[..., :TOP_K]
    return found


def draw_documents(specialists: bool, seed: int = 0) -> Documents:
    """Three domains of ten documents, two layers of eight experts, two selections per token; documents differ in their
    preferences.

    Expert 7 of layer 0 is never selected. With `specialists`, tokens of `law` select experts 0 and 1 of layer 1 more
    often; without, routing knows nothing of the domain.
    """
    rng = np.random.default_rng(seed)
    domain = np.repeat(["law", "code", "news"], 10)
    tokens = rng.integers(40, 80, 30)
    preference = rng.dirichlet(np.full(8, 12.0), size=(30, 2))
    preference[:, 0, 7] = 0
    if specialists:
        preference[:10, 1, :2] += 0.5
    preference /= preference.sum(-1, keepdims=True)
    index = np.array([[_pair(rng, p, n) for p in rows] for rows, n in zip(preference, tokens, strict=True)])
    selections = index.astype(np.float64)
    weight = selections * 0.5
    return Documents(domain, tokens, selections, weight, weight * 2.0, np.where(selections > 0, 3.0, 0.0), (1, 3))


def _pair(rng: np.random.Generator, p: np.ndarray, tokens: int) -> np.ndarray:
    """Counts of a draw of two different experts per token."""
    keys = np.log(np.maximum(p, 1e-300)) + rng.gumbel(size=(tokens, len(p)))
    return np.bincount(np.argsort(-keys, 1)[:, :2].ravel(), minlength=len(p))


@pytest.fixture(scope="session")
def specialists() -> Documents:
    """Two experts of the second layer serve `law`."""
    return draw_documents(True)


@pytest.fixture(scope="session")
def no_specialists() -> Documents:
    """Routing independent of the domain."""
    return draw_documents(False)
