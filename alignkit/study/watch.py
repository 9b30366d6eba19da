"""A word while a large study is planned: who waits may ask how far it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

Item = TypeVar("Item")
Watcher = Callable[[str, int, int], None]
"""Called with what is being worked on, how many are done and how many there are."""

_watcher: ContextVar[Watcher | None] = ContextVar("watcher", default=None)


@contextmanager
def watched(watcher: Watcher) -> Iterator[None]:
    """Tell `watcher` of all that is `counted` inside."""
    token = _watcher.set(watcher)
    try:
        yield
    finally:
        _watcher.reset(token)


def counted(what: str, items: Sequence[Item]) -> Iterator[Item]:
    """The items, one after the other, each told to the watcher if there is one.

    >>> with watched(lambda what, done, total: print(f"{what}: {done} of {total}")):
    ...     "".join(counted("letters", "ab"))
    letters: 0 of 2
    letters: 1 of 2
    'ab'
    """
    watcher = _watcher.get()
    for done, item in enumerate(items):
        if watcher is not None:
            watcher(what, done, len(items))
        yield item
