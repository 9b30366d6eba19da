"""How much memory there is, and what is said where it does not suffice."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import resource
from collections.abc import Iterator
from pathlib import Path

from alignkit.errors import AlignkitError, OutOfMemory

_WORDS = re.compile(
    r"can't allocate memory|cannot allocate memory|not enough memory|malloc of size|out of memory", re.I
)
_GROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)
_MOST_TIMES_LARGER = 1000


def machine_bytes() -> int:
    """The machine's memory, or the part of it that this process may have."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([whole, *(limit for limit, _ in _limits())])


def free_bytes() -> int | None:
    """The memory that this process may still take; None where the system does not say."""
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
    except OSError:
        return None
    line = re.search(r"^MemAvailable:\s+(\d+) kB", text, re.M)
    return max(0, min([int(line[1]) * 1024, *(limit - taken for limit, taken in _limits())])) if line else None


def _limits() -> Iterator[tuple[int, int]]:
    """What containers and `ulimit -v` allow, and what of that is taken."""
    for limit, taken in _GROUPS:
        with contextlib.suppress(OSError, ValueError):
            yield int(Path(limit).read_text(encoding="ascii")), int(Path(taken).read_text(encoding="ascii"))
    with contextlib.suppress(OSError, ValueError):
        allowed = resource.getrlimit(resource.RLIMIT_AS)[0]
        if allowed != resource.RLIM_INFINITY:
            pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
            yield allowed, pages * resource.getpagesize()


def is_shortage(error: BaseException) -> bool:
    """Whether an error says that memory ran out: numpy, pyarrow, torch and the system each have their own way."""
    if isinstance(error, AlignkitError):
        return isinstance(error, OutOfMemory)
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, MemoryError) or bool(_WORDS.search(str(error)))


def may_need(file_bytes: int) -> bool:
    """Whether a whole file of this size could take all memory; a damaged one can ask for any amount."""
    free = free_bytes()
    return free is None or free < _MOST_TIMES_LARGER * file_bytes


def shortage(what: str, mend: str, *, needed: float | None = None) -> OutOfMemory:
    """The error that says so: what ran out of memory, how much it takes and how much there is, and the mend."""
    takes = f"; it takes about {in_words(needed)}" if needed else ""
    free = free_bytes()
    there = f"; {in_words(free)} are free now" if free is not None else ""
    return OutOfMemory(f"{what}: out of memory{takes}{there}. {mend}")


@contextlib.contextmanager
def enough_memory(what: str, mend: str, *, needed: float | None = None) -> Iterator[None]:
    """Say in words where memory runs out inside."""
    try:
        yield
    except Exception as error:
        if isinstance(error, AlignkitError) or not is_shortage(error):
            raise
        raise shortage(what, mend, needed=needed) from None


def in_words(count: float) -> str:
    """A number of bytes.

    >>> in_words(2**12), in_words(2**21), in_words(3 * 2**30)
    ('4 KiB', '2 MiB', '3.0 GiB')
    """
    if count < 2**20:
        return f"{count / 2**10:,.0f} KiB"
    return f"{count / 2**20:,.0f} MiB" if count < 2**30 else f"{count / 2**30:,.1f} GiB"
