"""How a command ends: errors, interruptions and shortages as one message and an exit status."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from alignkit.cli.terminal import complain
from alignkit.errors import AlignkitError
from alignkit.memory import free_bytes, in_words, is_shortage


class Stopped(BaseException):
    """Ctrl-C or SIGTERM, with what is said of it; an exception, so that whatever has to clean up does."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@contextmanager
def _terminable() -> Iterator[None]:
    """Answer SIGTERM as Ctrl-C is answered."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: Any) -> NoReturn:
        raise Stopped("Stopped.", 128 + number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def one_message() -> Iterator[None]:
    """Turn what ends a command into one message: status 2 where the input or the machine is at fault, 130 after Ctrl-C,
    143 after SIGTERM."""
    try:
        with _terminable():
            yield
    except AlignkitError as error:
        complain(f"alignkit: {error}")
        sys.exit(2)
    except BrokenPipeError:  # the reader (head, say) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except SystemExit as end:
        if end.code == 130:  # Ctrl-C, as typer passes it on
            complain("Stopped.")
        raise
    except Stopped as stop:
        complain(str(stop))
        sys.exit(stop.status)
    except (MemoryError, RuntimeError, OSError) as error:
        if is_shortage(error):
            free = free_bytes()
            there = f" ({in_words(free)} are free now)" if free is not None else ""
            complain(f"alignkit: out of memory{there}. Close other programs, or ask for less; nothing is damaged by it")
        elif isinstance(error, OSError):
            place = error.filename or "standard output"
            complain(f"alignkit: {place}: {error.strerror}. Free or change the place, and run the same command again")
        else:
            raise
        sys.exit(2)
