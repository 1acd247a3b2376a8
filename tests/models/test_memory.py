"""The memory that a process held is its own."""

import multiprocessing

import numpy as np

from mechanism.models.memory import peak_memory


def held(count: int) -> int:
    assert np.ones(count).sum() == count
    return peak_memory()


def test_the_peak_is_of_the_process_alone_and_not_of_the_one_that_started_it():
    big = np.ones(60_000_000)  # 480 MB, held while the others start
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        little = pool.apply(held, (1,))
        more = pool.apply(held, (30_000_000,))
    assert peak_memory() > big.nbytes
    assert little < peak_memory() - 0.9 * big.nbytes
    assert more > little + 0.9 * 240_000_000
