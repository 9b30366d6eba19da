"""Which random effects a mixed model has: intercepts of seeds and runs, and terms whose effects vary over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from alignkit.errors import AnalysisError, nearest
from alignkit.stats.models.design import Design
from alignkit.stats.models.formula import parse_formula, predictor
from alignkit.stats.models.reml import Component
from alignkit.stats.tables.levels import level_column

RUN = "run_id"


def run_codes(rows: pd.DataFrame, run: str | None, block: np.ndarray) -> np.ndarray:
    """Which run each row is of, as a number; runs of different seeds differ, whatever they are called."""
    if run is None or (run == RUN and run not in rows.columns):
        return np.arange(len(rows))
    if run not in rows.columns:
        raise AnalysisError(f'expected a column "{run}"; {nearest(run, map(str, rows.columns))}')
    codes, _ = pd.factorize(rows[run].array)
    if (codes < 0).any():
        raise AnalysisError(
            f'expected a run in every row; got {int((codes < 0).sum()):,} rows without one in "{run}". '
            "Say which run they are of, or drop them"
        )
    return np.unique(np.column_stack([block, codes]), axis=0, return_inverse=True)[1].ravel()


def seed_terms(
    rows: pd.DataFrame, design: Design, block: np.ndarray, *, seed: str, random: Sequence[str] | None
) -> list[Component]:
    """One component per term of `random` (by default every fixed term that varies within seeds), main effects first.

    Raises `AnalysisError` where a named term has one level within every seed.
    """
    if random is not None and isinstance(random, str):
        random = [random]
    formula = design.formula if random is None else " + ".join(random)
    terms = [term for term in parse_formula(formula or "1").rhs_termlist if term.factors]
    components = []
    for term in sorted(terms, key=lambda term: len(term.factors)):
        component = _component(rows, design, term, seed)
        if is_constant(component, block):
            if random is None:
                continue
            name = component.name.removeprefix(f"{seed}:")
            raise AnalysisError(
                f'random: expected terms that vary within seeds; got "{name}", which has one level within every '
                f"{seed}. Leave it out: the variance of {seed} is what its effect is tested against"
            )
        components.append(component)
    return components


def is_constant(component: Component, group: np.ndarray) -> bool:
    """Whether all rows of a group have the same level and values, in every group."""
    columns = pd.DataFrame(np.column_stack([component.codes, component.values])).groupby(group)
    return bool(np.allclose(columns.max(), columns.min(), atol=1e-9))


def _component(rows: pd.DataFrame, design: Design, term: Any, seed: str) -> Component:
    codes = np.zeros(len(rows), dtype=int)
    values = np.ones((len(rows), 1))
    names = []
    for atom in term.factors:
        name, numbers = predictor(atom, rows)
        names.append(name)
        if numbers is None:
            levels = level_column(rows[name])
            if levels.isna().any():
                raise AnalysisError(f'random: expected a level of "{name}" in every row; got missing ones')
            joined = np.column_stack([codes, pd.factorize(levels)[0]])
            codes = np.unique(joined, axis=0, return_inverse=True)[1].ravel()
        else:
            # A slope's deviation is one around the middle of the rows: its variance depends on where 0 is.
            columns = Design.of(rows, name, response=design.response).x[:, 1:]
            columns = columns - columns.mean(axis=0)
            values = (values[:, :, None] * columns[:, None, :]).reshape(len(rows), -1)
    unit = float((values**2).sum(axis=1).mean())
    return Component(":".join([seed, *names]), codes, values / np.sqrt(unit), unit)
