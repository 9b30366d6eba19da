"""Progress below a notebook's cell."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from typing import Any

from alignkit.execution.progress import OnStatus, Status

_SECONDS = 0.5


def in_notebook() -> bool:
    """Whether a kernel runs this, whose cells can be written to; a terminal, IPython's too, is none."""
    ipython: Any = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and hasattr(shell, "kernel")


@contextmanager
def cell_progress(name: str) -> Iterator[Callable[[str], OnStatus]]:
    """A line below the cell for each stage of a study: how many runs have finished, and how many are left."""
    lines: list[_Line] = []

    def begin(stage: str) -> _Line:
        lines.append(_Line(f"{name}: {stage}"))
        return lines[-1]

    try:
        yield begin
    except BaseException:  # an interrupted cell, above all: say what is kept
        for line in lines[-1:]:
            line.stop()
        raise


class _Line:
    """One output of the cell, which is written anew as runs finish."""

    def __init__(self, title: str) -> None:
        self._title, self._handle, self._written = title, None, 0.0
        self._done, self._runs, self._note = 0, 0, ""

    def __call__(self, status: Status) -> None:
        self._done, self._runs = status.runs_done, status.runs
        now, left = time.monotonic(), status.runs - status.runs_done
        self._note = f". {status.notes[-1]}" if status.notes else self._note
        if not left or status.notes or now - self._written >= _SECONDS:
            self._written = now
            self._write(status.share, f", {left:,} left{self._note}" if left else "")

    def stop(self) -> None:
        """Say that the study goes on from here when the cell runs again."""
        if self._done < self._runs:
            share = self._done / self._runs
            self._write(share, ". Stopped: what had finished is kept, and the same cell goes on with the rest")

    def _write(self, share: float, more: str) -> None:
        from IPython.display import display

        text = f"{self._title}: {self._done:,} of {self._runs:,} runs{more}"
        bar = f'<progress max="1" value="{share:.3f}" style="vertical-align: middle"></progress>'
        content = {"text/plain": text, "text/html": f"<div>{bar} {escape(text)}</div>"}
        if self._handle is None:
            self._handle = display(content, raw=True, display_id=True)
        else:
            self._handle.update(content, raw=True)
