"""Compression baselines: what xz and an order-5 PPM reach with the same training text."""

import lzma

import pyppmd

ORDER, MEMORY = 5, 512 << 20


def ppm_bits(train: bytes, test: bytes) -> int:
    """Bits that PPMd (variant H, order 5) needs for `test` after it has read `train`."""
    return 8 * (_ppm_size(train + test) - _ppm_size(train))


def _ppm_size(payload: bytes) -> int:
    return len(pyppmd.Ppmd7Encoder(ORDER, MEMORY).encode(payload)) if payload else 0


def xz_bits(train: bytes, test: bytes) -> int:
    """Bits that `xz -9e` needs for `test` after it has read `train`, its dictionary large enough to hold both."""
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": 1 << 26}]

    def size(payload: bytes) -> int:
        return len(lzma.compress(payload, lzma.FORMAT_XZ, filters=filters))

    return 8 * (size(train + test) - size(train))
