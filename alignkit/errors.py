"""The errors that are the user's to mend: each says what was expected, what came, and what to do."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable
from typing import Any

_LONG = 10**40
_MOST_SHOWN = 300


class AlignkitError(Exception):
    """The input is at fault. The command line prints the message alone and exits with status 2."""


class StudyError(AlignkitError):
    """A study file asks for something that cannot be."""


class DataError(AlignkitError):
    """A dataset is missing, broken or of the wrong shape."""


class RecordsError(AlignkitError):
    """A records directory is missing, damaged or of another format."""


class OutOfMemory(AlignkitError):
    """There is too little memory for what was asked; nothing that was read is at fault."""


class AnalysisError(AlignkitError):
    """The records cannot answer the question that was asked of them."""


class AliasedError(AnalysisError):
    """The levels of a factor cannot be told apart from those of other factors in these cells."""


def quoted(value: Any) -> str:
    """A value as a message shows it: `repr`, cut where nobody reads on.

    >>> quoted("a"), quoted(12), quoted(-(10**400))
    ("'a'", '12', 'a whole number of about 401 digits')
    """
    if isinstance(value, int) and abs(value) > _LONG:
        return f"a whole number of about {int(math.log10(abs(value))) + 1:,} digits"
    try:
        text = repr(value)
    except ValueError:  # a list of numbers with more digits than Python writes
        return f"a {type(value).__name__}"
    return text if len(text) <= _MOST_SHOWN else f"{text[: _MOST_SHOWN - 1]}…"


_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
"""What a terminal obeys and XML forbids: control characters but for tabs and ends of lines, and halves of pairs."""


def printable(text: str) -> str:
    """A text in which control characters are written and not obeyed.

    >>> printable("red: \x1b[31m")
    'red: \\\\x1b[31m'
    """
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)


def has_control_characters(text: str) -> bool:
    return _CONTROL.search(text) is not None


def without_control_characters(value: Any) -> Any:
    """What a JSON file says, control characters in its texts written out."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return {printable(key): without_control_characters(part) for key, part in value.items()}
    return [without_control_characters(part) for part in value] if isinstance(value, list) else value


class ReportError(AlignkitError):
    """A section or a figure from outside the package cannot be taken into a report."""


def nearest(name: str, valid: Iterable[str]) -> str:
    """A clause that names the closest valid spelling and lists the rest.

    >>> nearest("widht", ["width", "depth"])
    'did you mean "width"? (valid: depth, width)'
    """
    names = sorted(set(valid))
    close = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    listing = ", ".join(names) if names else "none"
    return f'did you mean "{close[0]}"? (valid: {listing})' if close else f"valid: {listing}"


def require_text(what: str, value: Any) -> None:
    """One name, and no list of names."""
    if not isinstance(value, str):
        raise AnalysisError(f'{what}: expected one name, as text; got {value!r}. Write it as "name"')
