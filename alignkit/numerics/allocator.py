"""Memory that the C library keeps for the next step, instead of handing it back and asking for it again."""

from __future__ import annotations

import ctypes
import functools
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt(3)
KEPT_BYTES = 256 * 2**20
LARGEST_KEPT_BLOCK = 32 * 2**20
"""The largest threshold that glibc takes on 64-bit machines; larger blocks are mapped one by one."""


@functools.cache
def keep_freed_memory() -> bool:
    """Let this process keep up to 256 MiB of what it frees; False where the C library has no such setting.

    A step makes a few dozen tensors of the same sizes as the step before. By default glibc returns large blocks
    to the system at once, and the next step pays for each of their pages again: up to a third of a step's time.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # musl has none
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT_BLOCK) and mallopt(M_TRIM_THRESHOLD, KEPT_BYTES))
