"""Where a path leads that a user gave: told apart before anything is read, for a pipe or a device may never end."""

from __future__ import annotations

import stat
from pathlib import Path

from alignkit.errors import AlignkitError


def given_path(text: str | Path, *, what: str, error: type[AlignkitError] = AlignkitError) -> Path:
    """The path that a user wrote, with ~ and ~user in it resolved. An empty one is refused: it would mean this folder.

    >>> given_path("reports/quick", what="--out").as_posix()
    'reports/quick'
    """
    if not str(text).strip():
        raise error(f"{what}: expected a path; got an empty text. Write . for this folder")
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise error(f"{what}: expected a path; got {text}, and here is no such user. Write the path in full") from None


def kind_of(path: Path) -> str:
    """What lies at a path, links followed: "a file", "a folder", "a named pipe", …, or "nothing".

    >>> kind_of(Path("/dev/null"))
    'a device'
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return "nothing"
    kinds = {
        stat.S_IFREG: "a file", stat.S_IFDIR: "a folder", stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device", stat.S_IFBLK: "a device",
    }  # fmt: skip
    return kinds.get(stat.S_IFMT(mode), "something else")
