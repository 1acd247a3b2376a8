"""Where experts stand, and what routing then sends between devices: all-to-all volume, simulated.

Devices hold equally many experts. A token lives on its sequence's device. For every layer its hidden state goes once to
every other device that holds one of its selected experts, and one partial sum comes back from each.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment


class PlacementError(ValueError):
    """A placement that cannot be; the sentence says why."""


@dataclass(frozen=True)
class AllToAll:
    """Bytes a token sends and receives between devices.

    Attributes:
        width: of a hidden state; element_bytes: of one number.
    """

    width: int
    element_bytes: int = 2

    def __call__(
        self,
        index: Int[np.ndarray, "token layer slot"],
        home: Int[np.ndarray, " token"],
        placement: Int[np.ndarray, "layer expert"],
    ) -> Int[np.ndarray, " token"]:
        """Bytes of each token over all layers, dispatch and return."""
        sent = messages(index, home, placement).sum(1)
        return 2 * self.width * self.element_bytes * sent


def messages(
    index: Int[np.ndarray, "token layer slot"],
    home: Int[np.ndarray, " token"],
    placement: Int[np.ndarray, "layer expert"],
) -> Int[np.ndarray, "token layer"]:
    """How many other devices each token's state goes to: devices with several of its experts count once.

    Args:
        index: selected experts; home: device of the token; placement: device of every expert.
    """
    layers = np.arange(index.shape[1])[None, :, None]
    devices = np.sort(placement[layers, index], -1)
    fresh = np.concatenate([np.ones_like(devices[..., :1], bool), np.diff(devices, axis=-1) != 0], -1)
    return (fresh & (devices != home[:, None, None])).sum(-1)


def in_order(layers: int, experts: int, devices: int) -> Int[np.ndarray, "layer expert"]:
    """Experts placed in the order of their numbers: every layer over all devices, or, with more devices than experts,
    layer after layer.

    Raises:
        PlacementError: the experts cannot be shared out evenly.
    """
    each = _each(layers, experts, devices)
    numbers = np.arange(layers * experts).reshape(layers, experts)
    return (numbers % experts if experts >= devices else numbers) // each


def by_traffic(traffic: Float[np.ndarray, "device layer expert"]) -> Int[np.ndarray, "layer expert"]:
    """The placement that keeps most selections on the device of their tokens, with as many experts on each device as
    `in_order` has (an assignment problem, solved exactly).

    Args:
        traffic: selections of each expert by tokens of each device.

    Raises:
        PlacementError: the experts cannot be shared out evenly.
    """
    devices, layers, experts = traffic.shape
    each = _each(layers, experts, devices)
    seats = np.repeat(np.arange(devices), each)
    if experts >= devices:
        return np.stack([_assign(traffic[:, layer], seats) for layer in range(layers)])
    return _assign(traffic.reshape(devices, -1), seats).reshape(layers, experts)


def _assign(traffic: np.ndarray, seats: np.ndarray) -> np.ndarray:
    expert, seat = linear_sum_assignment(traffic[seats].T, maximize=True)
    return seats[seat[np.argsort(expert)]]


def _each(layers: int, experts: int, devices: int) -> int:
    held = experts if experts >= devices else layers * experts
    if devices < 1 or held % devices:
        what = f"{experts} experts" if experts >= devices else f"{layers} x {experts} experts"
        raise PlacementError(f"{what} cannot be placed on {devices} devices, equally many on each")
    return held // devices


def spread(sequences: int, devices: int) -> Int[np.ndarray, " sequence"]:
    """Device of each sequence: in turn."""
    return np.arange(sequences) % devices


def by_language(
    lang: Int[np.ndarray, " sequence"], shares: Float[np.ndarray, " lang"], devices: int
) -> Int[np.ndarray, " sequence"]:
    """Device of each sequence: every language has a stretch of the devices as long as its share of the text, and its
    sequences are spread over it.

    Raises:
        PlacementError: shares that do not sum to 1.
    """
    if not np.isclose(shares.sum(), 1):
        raise PlacementError(f"shares of the languages sum to {shares.sum():.3f}, not to 1")
    starts = np.cumsum(shares) - shares
    home = np.zeros(len(lang), dtype=int)
    for code in np.unique(lang):
        own = np.flatnonzero(lang == code)
        place = starts[code] + shares[code] * (np.arange(len(own)) + 0.5) / len(own)
        home[own] = np.minimum((place * devices).astype(int), devices - 1)
    return home


def traffic(
    index: Int[np.ndarray, "token layer slot"],
    home: Int[np.ndarray, " token"],
    weight: Float[np.ndarray, " token"],
    devices: int,
    experts: int,
) -> Float[np.ndarray, "device layer expert"]:
    """Selections of each expert by the tokens of each device, weighted."""
    layers, slots = index.shape[1:]
    found = np.zeros((devices, layers, experts))
    where = np.broadcast_to(home[:, None, None], index.shape), np.broadcast_to(np.arange(layers)[:, None], index.shape)
    np.add.at(found, (*where, index), np.broadcast_to(weight[:, None, None], (len(index), layers, slots)))
    return found


def imbalance(traffic: Float[np.ndarray, "device layer expert"], placement: Int[np.ndarray, "layer expert"]) -> float:
    """Load of the busiest device over the mean load, loads being selections of the experts it holds."""
    load = np.bincount(placement.reshape(-1), traffic.sum(0).reshape(-1), minlength=len(traffic))
    return float(load.max() / load.mean())
