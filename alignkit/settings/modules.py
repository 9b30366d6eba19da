"""A study's own modules: what it names as "module:Class", found beside its file, imported, and told apart by code."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import re
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from alignkit.errors import AlignkitError, StudyError

_OWN = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_WHERE = 'Expected "module:Class" of an installed module, or of one beside the study file'


def is_own(name: Any) -> bool:
    """Whether a name has the form "module:Class", by which a study names a class of the user's own.

    >>> is_own("my_rules:TargetProjection"), is_own("dfa")
    (True, False)
    """
    return isinstance(name, str) and _OWN.fullmatch(name) is not None


def find_modules_beside(study_file: Path, raw: Any) -> None:
    """Make modules in a study's own folder importable, last of all, where the study names a class of the user's own.

    Worker processes are started with the same path.

    Parameters
    ----------
    study_file : the study's file.
    raw : what the file says, as nested dictionaries and lists.
    """
    folder = str(study_file.resolve().parent)
    if folder not in sys.path and _names_own(raw):
        sys.path.append(folder)


def _names_own(raw: Any) -> bool:
    if isinstance(raw, dict):
        return any(map(_names_own, raw.values()))
    return any(map(_names_own, raw)) if isinstance(raw, list) else is_own(raw)


def code_identity(name: str) -> str:
    """What ids take for a class of the user's own: its name with a hash of its module's code."""
    try:
        origin = module_file(name.partition(":")[0])
        code = b"" if origin is None else Path(origin).read_bytes()
    except (ImportError, OSError, ValueError):
        code = b""  # `import_class` says what is wrong, before anything runs
    return f"{name}@{hashlib.blake2b(code, digest_size=8).hexdigest()}"


def module_file(name: str) -> str | None:
    """Where a module's code lies; nothing is imported, neither the module nor the packages that it is in.

    >>> module_file("alignkit.errors").endswith("errors.py"), module_file("no.such.module")
    (True, None)
    """
    if name in sys.modules:
        spec = importlib.util.find_spec(name)
        return None if spec is None else spec.origin
    places: Sequence[str] | None = None
    origin = None
    parts = name.split(".")
    for end in range(1, len(parts) + 1):
        whole = ".".join(parts[:end])
        found = (finder.find_spec(whole, places) for finder in sys.meta_path if hasattr(finder, "find_spec"))
        spec = next((spec for spec in found if spec is not None), None)
        if spec is None:
            return None
        origin, places = spec.origin, spec.submodule_search_locations
    return origin


def own_names(raw: Any) -> list[str]:
    """The classes of the user's own that a study names, in their order.

    >>> own_names({"rules": ["bp", "mine:Rule"], "data": {"name": "digits"}})
    ['mine:Rule']
    """
    if isinstance(raw, Mapping):
        raw = list(raw.values())
    if isinstance(raw, list | tuple):
        return list(dict.fromkeys(name for part in raw for name in own_names(part)))
    return [raw] if is_own(raw) else []


def import_class(name: str, *, what: str, where: str = _WHERE, error: type[AlignkitError] = StudyError) -> Any:
    """What "module:Class" names; `what` introduces it in errors, `where` says where it is looked for.

    Raises
    ------
    StudyError, or another `error` : the module cannot be imported, or does not define the name.
    """
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (Exception, SystemExit) as failure:  # a user's module may fail in any way, and may end the process
        raise error(f"{what}: cannot be imported ({type(failure).__name__}: {failure}). {where}") from None


@contextlib.contextmanager
def own_code(
    name: str,
    *,
    what: str,
    error: type[AlignkitError] = StudyError,
    let_through: tuple[type[Exception], ...] = (),
) -> Iterator[None]:
    """Say in a sentence where a class of the user's own failed; what fails in alignkit's own code is left as it is.

    Parameters
    ----------
    name : of the class, as the study names it.
    what : introduces it in the error.
    error : the kind of error that is raised.
    let_through : errors that pass unchanged, beside alignkit's own.
    """
    ours: tuple[type[Exception], ...] = (AlignkitError, *let_through)
    try:
        yield
    except ours:
        raise
    except (Exception, SystemExit) as failure:  # code that is not ours may fail in any way
        if not is_own(name):
            raise
        frames = traceback.extract_tb(failure.__traceback__)
        file = getattr(sys.modules.get(name.partition(":")[0]), "__file__", None)
        frame = ([frame for frame in frames if frame.filename == file] or frames)[-1]
        raise error(f"{what}: {type(failure).__name__}: {failure} ({frame.filename}:{frame.lineno})") from None
