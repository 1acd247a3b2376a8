"""Models whose answer is known, as tables of a sweep and its text: what each claim's test must find, and must not."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr

from ...measure.domain_inference import DocumentBootstrap, LabelNull
from ...measure.specialists import SpecialistTest
from .claims import Answer, claims
from .driver_experts import Swept
from .driver_tokens import DriverTokens
from .foretold import Foretold
from .tables import Space

DOMAINS, DOCUMENTS, TOKENS, LAYERS, EXPERTS = 3, 12, 30, 8, 12
DRIVER, DOMAIN_EXPERT = 0, 4
DRAWS, PERMUTATIONS = 100, 200
PLANTED = {
    "D1": ("one expert of a layer serves one domain", "labels of the documents permuted"),
    "D2": ("one expert of a layer has most of its effect", "experts alike"),
    "D3": ("drivers are not the experts of domains", "drivers are the experts of domains"),
    "D4": ("drivers are selected early", "positions permuted"),
    "D6": ("drivers write into one direction", "directions drawn"),
    "D7": ("effects at a token that no metric of an expert tells", "an expert's use tells its effect"),
}
"""Of each claim, what is so in the model of which it must be found true, and what in the one of which it must not."""


def planted(true: bool, seed: int = 0) -> tuple[Swept, xr.Dataset]:
    """A sweep and its text: of a model of which all claims are true, or none is, see `PLANTED`."""
    rng = np.random.default_rng(seed)
    sequences = DOMAINS * DOCUMENTS
    domain = np.repeat(np.array(list("abc")), DOCUMENTS)
    place = np.tile(np.arange(TOKENS), sequences)
    index = _routing(rng, np.repeat(domain, TOKENS), place / (TOKENS - 1), true)
    chosen = np.zeros((len(index), LAYERS, EXPERTS), dtype=bool)
    np.put_along_axis(chosen, index, True, -1)
    selections = chosen.reshape(sequences, TOKENS, LAYERS, EXPERTS).sum(1)
    force = np.full((LAYERS, EXPERTS), 0.01)
    force[:, DRIVER if true else DOMAIN_EXPERT] *= 200 if true else 1.5
    kl = selections * force * rng.gamma(5, 0.2, selections.shape)
    labels = {"domain": domain, "lang": np.full(sequences, "en")}
    labels["document"] = np.arange(sequences).astype(str)
    found = _sweep(kl, selections, labels, rng)
    sequence = np.repeat(np.arange(sequences), TOKENS)
    if not true:
        place = np.concatenate([rng.permutation(TOKENS) for _ in range(sequences)])
    means = rng.normal(size=(LAYERS, EXPERTS, 16))
    means[:, DRIVER] += 6.0 * true
    data = {
        "sequence": sequence,
        "place": place,
        "length": np.full(len(place), TOKENS),
        "id": np.zeros(len(place), int),
    }
    text: dict[str, Any] = {name: ("token", own) for name, own in data.items()}
    text |= {"index": (("token", "layer", "slot"), index), "mean_output": (("layer", "expert", "d"), means)}
    shift = 0.0 if true else 4 * found["cheap_selections"].values[np.arange(LAYERS)[:, None], index]
    effects = {"kl": np.exp(rng.normal(size=index.shape) * 0.5 + shift), "later": np.zeros(index.shape)}
    effects |= {"weight": rng.uniform(size=index.shape), "size": rng.uniform(size=index.shape), "expert": index}
    text |= {f"probe_{name}": (("probe", "layer", "slot"), own) for name, own in effects.items()}
    text["probe_sequence"] = "probe", sequence
    return Swept(found, n_boot=DRAWS, n_perm=PERMUTATIONS, seed=seed), xr.Dataset(text, {"layer": np.arange(LAYERS)})


def _routing(rng: np.random.Generator, domain: np.ndarray, relative: np.ndarray, true: bool) -> np.ndarray:
    """`(token, layer, slot)` two experts of each layer for each token."""
    wish = rng.gumbel(size=(len(domain), LAYERS, EXPERTS)) + rng.normal(size=(LAYERS, EXPERTS)) * (0.1 if true else 0.6)
    wish[:, :, DRIVER] += np.where(true, 1.2 - 2.4 * relative, 0)[:, None]
    wish[:, :, DOMAIN_EXPERT] += np.where(domain == "a", 2.0, -1.0)[:, None]
    return np.asarray(np.argsort(-wish, axis=-1)[..., :2])


def _sweep(kl: np.ndarray, selections: np.ndarray, labels: dict, rng: np.random.Generator) -> xr.Dataset:
    full = ("mode", "sequence", "layer", "expert")
    modes = ["zero", "reroute", "mean"]
    data: dict[str, Any] = dict.fromkeys(("kl", "own", "loss"), (full, np.stack([kl] * len(modes))))
    data["selections"] = (full[1:], selections)
    data |= {name: ("sequence", np.full(len(kl), TOKENS)) for name in ("tokens", "targets")}
    data |= {name: ("sequence", own) for name, own in labels.items()}
    rate = selections.mean(0) / TOKENS
    for name in ("weight", "probability", "entropy", "peak"):
        data[f"cheap_{name}"] = (full[2:], rate * rng.uniform(0.9, 1.1, rate.shape))
    data["cheap_selections"] = (full[2:], rate)
    data["forming"] = ("layer", np.zeros(LAYERS, bool))
    about = {"config": json.dumps({"modes": modes})}
    return xr.Dataset(data, {"mode": modes, "layer": np.arange(LAYERS), "expert": np.arange(EXPERTS)}, about)


def planted_answers(true: bool, seed: int = 0) -> dict[str, Answer]:
    """What the claims of `PLANTED` are judged on, of a model that is made up."""
    swept, text = planted(true, seed)
    assert swept.documents is not None
    test = SpecialistTest(
        null=LabelNull(n_perm=PERMUTATIONS, seed=seed), bootstrap=DocumentBootstrap(n_boot=DRAWS, seed=seed)
    )
    documents = swept.documents
    if not true:
        documents = replace(documents, domain=np.random.default_rng(seed).permutation(documents.domain))
    found = claims(
        special=[test(documents)], swept=[swept], tokens=[DriverTokens(swept, text)],
        space=[Space.of(swept, text["mean_output"].values)], foretold=[Foretold(swept, text)],
    )  # fmt: skip
    return {claim: found[claim] for claim in PLANTED}
