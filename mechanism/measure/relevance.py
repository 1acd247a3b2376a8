"""Scores of experts from gate weights and outputs: ESFT, expert activity, super experts."""

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Bool, Float

from .documents import Domains


def gate_score(domains: Domains) -> Float[np.ndarray, "layer expert domain"]:
    """ESFT average gate score (arXiv 2407.01906, eq. 6): mean over documents of the mean over their tokens of the gate
    weight, 0 where the expert is not selected."""
    return domains.mean("weight")


def token_ratio(domains: Domains) -> Float[np.ndarray, "layer expert domain"]:
    """ESFT token selection ratio (arXiv 2407.01906, eq. 7): mean over documents of the share of their selections that
    went to the expert. Sums to 1 over the experts of a layer.

    The number of selections per token stands for the source's K; the two are equal where every token has K experts.
    A layer that selected nothing has NaN.
    """
    found = domains.mean("selections")
    total = found.sum(1, keepdims=True)
    return np.asarray(np.where(total > 0, found / np.where(total > 0, total, 1), np.nan))


def expert_activity(domains: Domains) -> Float[np.ndarray, "layer expert domain"]:
    """Mean over a domain's tokens of `|g| ||E(x)||`, 0 where the expert is not selected (arXiv 2604.02178): the size of
    what the expert adds to the residual stream, in its units; comparable within a layer only."""
    return np.asarray(domains.total("activity") / domains.tokens)


def peak(domains: Domains) -> Float[np.ndarray, "layer expert domain"]:
    """Largest absolute output of the expert on a domain's tokens (arXiv 2507.23279); see `super_experts`."""
    return domains.largest("peak")


def super_experts(
    peaks: Float[np.ndarray, "layer expert"], forming: Bool[np.ndarray, "layer"] | None = None
) -> Bool[np.ndarray, "layer expert"]:
    """Super experts (arXiv 2507.23279): `peak` above the 99.5 % quantile over all experts of the model and above a
    tenth of the largest, in a layer that forms massive activations. The quantile alone always names one in 200.

    Args:
        peaks: largest absolute output over all text; forming: layers that form massive activations, all without it.

    Raises:
        ValueError: a peak that is negative or not finite.
    """
    if not (np.isfinite(peaks).all() and (peaks >= 0).all()):
        raise ValueError("peaks have to be finite and at least 0")
    layers = np.ones(len(peaks), dtype=bool) if forming is None else forming
    return np.asarray((peaks > np.quantile(peaks, 0.995)) & (peaks > 0.1 * peaks.max()) & layers[:, None])


def forming_layers(peaks: Float[np.ndarray, "layer"], medians: Float[np.ndarray, "layer"]) -> Bool[np.ndarray, "layer"]:
    """Layers after which some activation is massive, and is not before: above 100, and above a thousand times the
    median (Sun et al. 2024, arXiv 2402.17762).

    Args:
        peaks, medians: of the absolute hidden states after each decoder layer, the opening token's among them.

    Raises:
        ValueError: a value that is not finite: what is not known is not ordinary.
    """
    if not (np.isfinite(peaks).all() and np.isfinite(medians).all()):
        raise ValueError("hidden states after a layer are not known, or not finite: it cannot be said where peaks form")
    massive = (peaks > 100) & (peaks > 1000 * medians)
    return np.asarray(massive & ~np.concatenate([[False], massive[:-1]]))


def list_super_experts(inside: xr.Dataset) -> pd.DataFrame:
    """Super experts of a model, a row each with `layer`, `expert`, `peak_output` and `selections`; see `super_experts`.
    An expert that no token selected has shown nothing and is none.

    Args:
        inside: what `mechanism.trace.Inside.dataset` gives; the text has to hold the tokens that open sequences.

    Raises:
        ValueError: see `forming_layers`.
    """
    formed = forming_layers(inside["hidden_peak"].values, inside["hidden_median"].values)
    formed = formed[np.searchsorted(inside["decoder_layer"].values, inside["layer"].values)]
    peaks = np.nan_to_num(inside["peak_output"].values.astype(np.float64))
    at = np.nonzero(super_experts(peaks, formed))
    rows = {"layer": inside["layer"].values[at[0]], "expert": inside["expert"].values[at[1]]}
    return pd.DataFrame(rows | {name: inside[name].values[at] for name in ("peak_output", "selections")})
