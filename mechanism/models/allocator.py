"""Memory that a process keeps or gives back; no torch, so that a command can begin again before it loads anything."""

import ctypes
import os
import sys

# glibc returns large blocks to the system after every step and then pays for the page faults again.
KEEP_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 40), "MALLOC_ARENA_MAX": "1"}


def keep_memory() -> None:
    """Start the process again with an allocator that keeps its memory (glibc only; a second call does nothing)."""
    if sys.platform == "linux" and "MALLOC_MMAP_MAX_" not in os.environ:
        os.execve(sys.executable, [sys.executable, "-m", "mechanism", *sys.argv[1:]], os.environ | KEEP_MEMORY)


def release_memory() -> None:
    """Give back to the system what is free (glibc only): an allocator that keeps its memory does not do so itself."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)
