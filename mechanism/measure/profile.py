"""Shape of a quantity over depth: is it low in the middle, does it fall, does it jump at the end?"""

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float


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
    return pd.DataFrame(rows).T.rename_axis("contrast")


def dip(profile: Float[np.ndarray, "*batch layer"]) -> Float[np.ndarray, "*batch"]:
    """Depth of a U: by which share the mean over the middle third lies below the lower one of the first and the last
    sixth (`depth_windows`). Negative where the middle lies above an end: a profile that only falls, or only rises, has
    no depth.

    >>> float(dip(np.array([0.4, 0.3, 0.2, 0.3, 0.5]))), float(dip(np.array([5.0, 4, 3, 2, 1])))
    (0.5, -2.0)
    """
    means = {name: profile[..., mask].mean(-1) for name, mask in depth_windows(profile.shape[-1]).items()}
    return np.asarray(1 - means["middle"] / np.minimum(means["start"], means["end"]))
