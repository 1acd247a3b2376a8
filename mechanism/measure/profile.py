"""Shape of a quantity over depth: is it low in the middle, does it fall, does it jump at the end?"""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from .statistics import ClusterBootstrap


def window(layers: int, low: float, high: float) -> Bool[np.ndarray, "layer"]:
    """Layers whose centre `(l + 1/2) / layers` lies within `[low, high]`, both fractions of the depth."""
    centre = (np.arange(layers) + 0.5) / layers
    return np.asarray((centre >= low - 1e-9) & (centre <= high + 1e-9))


def depth_windows(layers: int) -> dict[str, Bool[np.ndarray, "layer"]]:
    """The first sixth, the middle third and the last sixth of the layers, each of at least one layer.

    Raises:
        ValueError: fewer than three layers.
    """
    if layers < 3:
        raise ValueError(f"a profile over depth needs at least three layers, got {layers}")
    found = {
        "start": window(layers, 0.0, 1 / 6),
        "middle": window(layers, 1 / 3, 2 / 3),
        "end": window(layers, 5 / 6, 1.0),
    }
    found["start"][0] = found["end"][-1] = True
    return found


def contrasts(layers: int) -> pd.DataFrame:
    """Weights `(contrast, layer)` whose products with a profile are its shape statistics.

    `start`, `middle`, `end`: means of `depth_windows`. `start-middle`, `end-middle` and their mean `ends-middle`:
    positive for a U. `slope`: rise of the least-squares line from the first layer to the last. `last_step`: last layer
    minus the one before.

    Raises:
        ValueError: fewer than three layers.
    """
    rows = {name: mask / mask.sum() for name, mask in depth_windows(layers).items()}
    for end in ("start", "end"):
        rows[f"{end}-middle"] = rows[end] - rows["middle"]
    rows["ends-middle"] = (rows["start-middle"] + rows["end-middle"]) / 2
    depth = np.linspace(-0.5, 0.5, layers)
    rows["slope"] = depth / (depth @ depth)
    rows["last_step"] = np.eye(layers)[-1] - np.eye(layers)[-2]
    return pd.DataFrame(rows).T


@dataclass(frozen=True)
class ProfileShape:
    """Shape statistics of a profile with cluster-bootstrap intervals.

    Attributes:
        bootstrap: over segments, whole clusters resampled.
    """

    bootstrap: ClusterBootstrap = field(default_factory=ClusterBootstrap)

    def __call__(self, values: Float[np.ndarray, "segment layer"], clusters: np.ndarray | None = None) -> pd.DataFrame:
        """Columns `value`, `low`, `high`, `n` for each of `contrasts`; a difference of two windows is taken within each
        segment, so its interval is paired. Segments with a NaN are left out, and `n` says how many clusters stayed.

        Raises:
            ValueError: fewer than three layers, or no segment left.
        """
        kept = ~np.isnan(values).any(1)
        groups = None if clusters is None else np.asarray(clusters)[kept]
        weights = contrasts(values.shape[1])
        products = np.asarray(values, np.float64)[kept] @ weights.to_numpy().T
        rows = [self.bootstrap(column, clusters=groups).row("value") for column in products.T]
        return pd.DataFrame(rows, index=pd.Index(weights.index, name="contrast"))


def is_u_shaped(shape: pd.DataFrame) -> bool:
    """Whether the middle lies below both ends with intervals apart: the upper bound of `middle` below the lower bounds
    of `start` and `end`. Stricter, as a rule, than asking that the paired differences exclude 0.

    Args:
        shape: what `ProfileShape` returns.
    """
    return bool(shape.loc["middle", "high"] < min(shape.loc["start", "low"], shape.loc["end", "low"]))
