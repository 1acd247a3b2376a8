"""A process that keeps its memory gives it back when it is told to."""

import os
import subprocess
import sys

import pytest

from mechanism.models.allocator import KEEP_MEMORY

CODE = """
import psutil
from mechanism.models.allocator import release_memory
own = psutil.Process()
before = own.memory_info().rss
blocks = [bytearray(b"x" * 10**6) for _ in range(200)]
kept = [bytearray(10) for _ in range(10)]
del blocks
after = own.memory_info().rss
release_memory()
print((after - before) // 10**6, (own.memory_info().rss - before) // 10**6)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc only")
def test_what_is_kept_can_be_given_back():
    done = subprocess.run(
        [sys.executable, "-c", CODE], capture_output=True, text=True, check=True, env=os.environ | KEEP_MEMORY
    )
    kept, left = map(int, done.stdout.split())
    assert kept > 150, "it keeps"
    assert left < 20
