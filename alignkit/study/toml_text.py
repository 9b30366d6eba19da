"""A study's options as TOML, the way its file states them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from alignkit.errors import StudyError


def toml_text(options: Mapping[str, Any]) -> str:
    """Nested options as TOML text: values first, then a section for each table.

    >>> print(toml_text({"name": "quick", "network": {"width": 64}}))
    name = "quick"
    <BLANKLINE>
    [network]
    width = 64
    """
    return "\n".join(_lines(options, ())).strip()


def _lines(options: Mapping[str, Any], path: tuple[str, ...]) -> list[str]:
    values = {key: value for key, value in options.items() if not _is_section(value)}
    sections = {key: value for key, value in options.items() if _is_section(value)}
    lines = [f"{_key(key)} = {_value(value)}" for key, value in values.items()]
    for key, section in sections.items():
        place = (*path, key)
        name = ".".join(map(_key, place))
        tables = section if isinstance(section, list) else [section]
        for table in tables:
            head = f"[[{name}]]" if isinstance(section, list) else f"[{name}]"
            inner = _lines(table, place)
            # A table that only holds tables needs no head of its own.
            bare = not isinstance(section, list) and inner and inner[0] == ""
            lines += inner if bare else ["", head, *inner]
    return lines


def _is_section(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and all(isinstance(item, Mapping) for item in value)
    return isinstance(value, Mapping)


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else json.dumps(key, ensure_ascii=False)


def _value(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(key)} = {_value(inner)}" for key, inner in value.items()) + "}"
    if value is None:
        raise StudyError(
            "TOML has no None, and a level of this study is None. Give the levels names instead, as in "
            '{"rank": {"full": {}, "low": {"feedback.rank": 2}}}'
        )
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
