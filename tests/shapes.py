"""The engine's annotations, checked at every call: `pytest --shapes` calls `install` before anything is imported."""

from __future__ import annotations

import typing

import jaxtyping
from beartype import BeartypeConf, beartype

from alignkit.numerics import kinds

CHECKED = ("alignkit.numerics", "alignkit.networks", "alignkit.rules", "alignkit.measures", "alignkit.training")

check = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int is a float, too


def install() -> None:
    typing.Protocol._is_runtime_protocol = True  # as @typing.runtime_checkable: an argument has the protocol's names
    kinds.Bool, kinds.Float, kinds.Int = jaxtyping.Bool, jaxtyping.Float, jaxtyping.Int
    jaxtyping.install_import_hook(CHECKED, "shapes.check")
