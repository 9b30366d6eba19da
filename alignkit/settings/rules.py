"""The rules by name, without importing them: a study can be read without torch."""

from __future__ import annotations

import hashlib
import importlib.util
import re
import sys
from collections.abc import Iterable
from pathlib import Path

from alignkit.errors import StudyError, nearest

RULES = {
    "bp": "alignkit.rules.bp:BP",
    "dfa": "alignkit.rules.dfa:DFA",
    "fa": "alignkit.rules.fa:FA",
    "imposed_angle": "alignkit.rules.imposed_angle:ImposedAngle",
    "shallow": "alignkit.rules.shallow:Shallow",
}
WITHOUT_FEEDBACK = frozenset({"bp", "shallow"})
"""Rules whose training no feedback option changes: cells that differ in those alone share a run."""


def check_rule(name: str) -> None:
    """Raise `StudyError` unless `name` is a rule of the table or has the form "module:Class"."""
    if name not in RULES and not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", name):
        raise StudyError(f'no rule is called "{name}"; {nearest(name, RULES)}, or "module:Class" for one of your own')


def find_rules_beside(study_file: Path, names: Iterable[str]) -> None:
    """Make modules in a study's own folder importable, last of all, where it names a rule of the user's own.

    Worker processes are started with the same path.
    """
    folder = str(study_file.resolve().parent)
    if any(name not in RULES for name in names) and folder not in sys.path:
        sys.path.append(folder)


def rule_identity(name: str) -> str:
    """What a run's id takes for a rule: its name, and for a user's own a hash of its module's code as well."""
    if name in RULES:
        return name
    try:
        spec = importlib.util.find_spec(name.partition(":")[0])
        code = b"" if spec is None or spec.origin is None else Path(spec.origin).read_bytes()
    except (ImportError, OSError, ValueError):
        code = b""  # `rule_class` says what is wrong, before anything runs
    return f"{name}@{hashlib.blake2b(code, digest_size=8).hexdigest()}"
