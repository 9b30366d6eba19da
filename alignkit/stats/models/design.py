"""A model's fixed effects on a table: from a formula or a list of factors to a model matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import patsy

from alignkit.errors import AnalysisError, nearest
from alignkit.stats.models.formula import (
    Interactions,
    column_label,
    factor_name,
    formula_text,
    left_hand_side,
    model_matrix,
    number_name,
    parse_formula,
    predictor,
)
from alignkit.stats.tables.checks import number_column, require_columns
from alignkit.stats.tables.levels import level_column, level_order, numeric_levels

MOST_LEVELS = 40
"""A column with more different numbers than this was hardly meant as a categorical factor."""

ROUNDING = 1e-12
"""Variation below this share of the response's own is that of floating-point numbers, not of data."""

LAST_DIGITS = 8 * float(np.finfo(float).eps)
"""And so is variation below this share of the response itself, whose last digits it is."""

_KEEP = patsy.NAAction(on_NA="raise", NA_types=())  # NaN stays, to be named by its term


@dataclass(frozen=True, eq=False, kw_only=True)
class Design:
    """The fixed effects of a model on the rows of a table.

    Factors are coded as deviations (they sum to zero over the levels), so that a term's coefficients are
    effects around the mean of the cells, and a test of a main effect stays one beside interactions.

    formula : the model as text, and `response`, the column that it describes.
    factors : categorical factors and their levels as text, in `level_order`.
    covariates : numeric predictors and their means over the rows used, where a reference grid holds them.
    x : [n, p], the model matrix; y : [n], the response, in the response's unit.
    names : the p coefficient names, such as "norm[batch]" or "norm[batch]:log2(width)".
    terms : each term's columns of `x`, the intercept included as "Intercept".
    index : the labels of the rows used, and `used` the same as a mask over all rows of the table;
        `dropped` counts those left out because a value is missing.
    level_codes : [n, number of factors], each row's level as a position among the factor's levels.
    """

    formula: str
    response: str
    factors: dict[str, tuple[str, ...]]
    covariates: dict[str, float]
    x: np.ndarray
    y: np.ndarray
    names: tuple[str, ...]
    terms: dict[str, tuple[int, ...]]
    index: pd.Index
    used: np.ndarray
    level_codes: np.ndarray
    dropped: int = 0
    matrix_info: Any = field(default=None, repr=False)

    @classmethod
    def of(
        cls,
        table: pd.DataFrame,
        formula_or_factors: str | Sequence[str],
        *,
        response: str = "value",
        interactions: Interactions | None = None,
    ) -> Design:
        """The model matrix of a formula, or of factors with their interactions up to an order (2 by default).

        A column named plainly is a categorical factor whatever its type: `width` has a coefficient per
        level. A number is written as one: `log2(width)`, `I(position)`, `center(log2(width))`. A covariate
        that interacts with a factor should be centred, or the factor's main effect is its effect where
        the covariate is 0.

        Rows in which the response or a predictor is missing are left out and counted.
        Raises `AnalysisError` for unknown columns, infinite values, for factors with one level, and for terms that the
        rows cannot tell apart, which it names.

        >>> table = pd.DataFrame({"width": [8, 8, 64, 64], "norm": ["no", "yes"] * 2, "value": [1.0, 2, 3, 5]})
        >>> Design.of(table, "log2(width) + norm").names
        ('Intercept', 'norm[no]', 'log2(width)')
        """
        require_columns(table)
        formula = formula_text(table, formula_or_factors, interactions)
        model = parse_formula(formula)
        if model.lhs_termlist:
            response = left_hand_side(model, None if response == "value" else response)
        require_columns(table, response)
        # Whoever writes a term names every factor in it, and each is either a column's levels or a number.
        atoms = {atom: predictor(atom, table) for term in model.rhs_termlist for atom in term.factors}
        categorical = dict.fromkeys(name for name, columns in atoms.values() if columns is None)
        numeric = dict.fromkeys(name for _, columns in atoms.values() for name in columns or ())
        if response in categorical or response in numeric:
            raise AnalysisError(f'"{response}" is the response; expected it on the left of the model alone: {formula}')
        require_columns(table, *categorical, *numeric)
        data: dict[str, Any] = {factor_name(name): level_column(table[name]) for name in categorical}
        y = number_column(table[response], response)
        used = np.isfinite(y)
        for name in numeric:
            data[number_name(name)] = number_column(table[name], name)
            used &= np.isfinite(data[number_name(name)])
        for name in categorical:
            used &= data[factor_name(name)].notna().to_numpy()
        if not used.any():
            raise AnalysisError(
                f"expected rows with a {response} and every predictor of {formula}; got {len(table):,} rows, none "
                "complete. Look for missing values"
            )
        factors = {name: _levels(name, data[factor_name(name)][used]) for name in categorical}
        covariates = {name: float(data[number_name(name)][used].mean()) for name in numeric if name not in factors}
        values = {factor_name(name): _coded(data[factor_name(name)][used], levels) for name, levels in factors.items()}
        values |= {number_name(name): data[number_name(name)][used] for name in numeric}
        matrix, label = model_matrix(model, atoms, values, formula)
        info = matrix.design_info
        terms = {
            ":".join(label[factor.code] for factor in term.factors) or "Intercept": tuple(
                range(columns.start, columns.stop)
            )
            for term, columns in info.term_slices.items()
        }
        x = np.ascontiguousarray(matrix)
        if not np.isfinite(x).all():
            bad = [term for term, columns in terms.items() if not np.isfinite(x[:, columns]).all()]
            raise AnalysisError(f"{', '.join(bad)}: not a finite number in every row. Transform or drop those rows")
        require_rank(x, terms)
        return cls(
            formula=formula,
            response=response,
            factors=factors,
            covariates=covariates,
            x=x,
            y=y[used],
            names=tuple(column_label(name, label) for name in info.column_names),
            terms=terms,
            index=table.index[used],
            used=used,
            level_codes=np.column_stack(
                [np.zeros((len(x), 0), int), *(values[factor_name(name)].codes for name in factors)]
            ),
            dropped=int((~used).sum()),
            matrix_info=info,
        )

    def rows(self, grid: pd.DataFrame) -> np.ndarray:
        """The model matrix [m, p] of a reference grid, which has a column per factor and covariate."""
        values: dict[str, Any] = {}
        for name in (*self.factors, *self.covariates):
            if name not in grid.columns:
                raise AnalysisError(f'expected the grid to have a column "{name}"; {nearest(name, map(str, grid))}')
        for name, levels in self.factors.items():
            texts = level_column(grid[name])
            unknown = [text for text in level_order(texts) if text not in levels]
            if unknown or texts.isna().any():
                what = ", ".join(unknown) or "a missing level"
                raise AnalysisError(f'factor "{name}": expected one of {", ".join(levels)}; got {what}')
            values[factor_name(name)] = _coded(texts, levels)
            # A factor may also stand in the model as a number: then its levels are numbers.
            if (numbers := numeric_levels(texts)) is not None:
                values[number_name(name)] = np.array(numbers)
        values |= {number_name(name): number_column(grid[name], name) for name in self.covariates}
        if not (self.factors or self.covariates):
            return np.ones((len(grid), 1))
        try:
            with np.errstate(all="ignore"):
                x = np.asarray(patsy.build_design_matrices([self.matrix_info], values, NA_action=_KEEP)[0])
        except patsy.PatsyError as error:
            raise AnalysisError(f'"{self.formula}": {str(error).splitlines()[0]}') from None
        undefined = [term for term, columns in self.terms.items() if not np.isfinite(x[:, columns]).all()]
        if undefined:
            where = ", ".join(f"{name} = {float(grid[name].iloc[0]):g}" for name in self.covariates)
            raise AnalysisError(
                f"{', '.join(undefined)}: expected a finite number at every level of the grid; got none"
                f"{' with ' + where if where else ''}. Put the covariates elsewhere with `at`"
            )
        return x

    @cached_property
    def offset(self) -> float:
        """The response's middle: fits are of what differs from it, so that an offset costs no digits."""
        return float(self.y.min() + np.ptp(self.y) / 2)

    @cached_property
    def centred(self) -> np.ndarray:
        """The response [n] less its `offset`."""
        return self.y - self.offset

    @cached_property
    def rounding(self) -> float:
        """How much rows may differ by rounding alone, in the response's unit."""
        return max(ROUNDING * float(np.ptp(self.y)), LAST_DIGITS * float(np.abs(self.y).max()))

    def uncentred(self, coefficients: np.ndarray) -> np.ndarray:
        """Coefficients [..., p] of the response, from those of the `centred` one."""
        moved = coefficients.copy()
        moved[..., self.terms["Intercept"][0]] += self.offset
        return moved

    def rounding_of(self, weights: np.ndarray) -> np.ndarray:
        """What `rounding` in every row may make of least-squares estimates of the combinations `weights` [m, p]."""
        return self.rounding * np.linalg.norm(weights @ self._root_inverse, axis=1)

    @cached_property
    def _root_inverse(self) -> np.ndarray:
        lengths = np.linalg.norm(self.x, axis=0)
        return np.asarray(np.linalg.inv(np.linalg.qr(self.x / lengths, mode="r")) / lengths[:, None])

    @property
    def missing_note(self) -> tuple[str, ...]:
        """How many rows had no value, as the warning of a fit; empty where none was left out."""
        total = len(self.y) + self.dropped
        return (f"{self.dropped:,} of {total:,} rows left out: a value is missing",) if self.dropped else ()


def independent_columns(x: np.ndarray) -> list[int]:
    """The columns of x [n, p] that earlier columns do not already span, in order (as R's lm keeps them)."""
    lengths = np.linalg.norm(x, axis=0)
    basis = np.zeros((x.shape[0], 0))
    kept = []
    for column in np.flatnonzero(lengths):
        residual = x[:, column] / lengths[column]
        # Twice is enough: one pass of Gram-Schmidt loses digits among nearly parallel columns.
        for _ in range(2):
            residual = residual - basis @ (basis.T @ residual)
        size = float(np.linalg.norm(residual))
        if size > 1e-7:
            kept.append(int(column))
            basis = np.column_stack([basis, residual / size])
    return kept


def unit_columns(x: np.ndarray) -> np.ndarray:
    """The columns of x [n, p] in units in which each has length 1, or is 0."""
    lengths = np.linalg.norm(x, axis=0)
    return np.asarray(x / np.where(lengths > 0, lengths, 1.0))


def require_rank(x: np.ndarray, terms: Mapping[str, Sequence[int]]) -> None:
    """Raise `AnalysisError` naming the terms that the rows of `x` cannot tell from earlier ones."""
    kept = independent_columns(x)
    if len(kept) == x.shape[1]:
        return
    x = unit_columns(x)
    term_of = {column: term for term, columns in terms.items() for column in columns}
    aliases: dict[str, list[str]] = {}
    for column in sorted(set(range(x.shape[1])) - set(kept)):
        before = [earlier for earlier in kept if earlier < column]
        weights = np.linalg.lstsq(x[:, before], x[:, column], rcond=None)[0] if before else np.zeros(0)
        scale = np.abs(weights).max(initial=0.0)
        involved = [term_of[c] for c, weight in zip(before, weights, strict=True) if abs(weight) > 1e-6 * scale]
        aliases.setdefault(term_of[column], []).extend(involved)
    parts = []
    for term, others in aliases.items():
        named = [other for other in dict.fromkeys(others) if other not in (term, "Intercept")]
        parts.append(
            f"{term} is aliased with {' and '.join(named)}" if named else f"{term} lacks cells, or holds a factor twice"
        )
    shown = "; ".join(parts[:6]) + (f"; and {len(parts) - 6} more" if len(parts) > 6 else "")
    drop = ", ".join(list(aliases)[:6]) + (", …" if len(aliases) > 6 else "")
    raise AnalysisError(
        f"expected terms that the rows can tell apart; got {x.shape[1]} coefficients of rank {len(kept)}: {shown}. "
        f"Drop {drop} (or what it is aliased with), or add the cells that are missing"
    )


def _coded(texts: pd.Series, levels: Sequence[str]) -> pd.Categorical:
    return pd.Categorical(texts, categories=list(levels))


def _levels(name: str, texts: pd.Series) -> tuple[str, ...]:
    """The levels of a factor among the rows used; at least two, and no more than a factor has."""
    levels = level_order(texts)
    if len(levels) < 2:
        raise AnalysisError(
            f'factor "{name}": expected at least two levels; got {", ".join(levels)} alone. Leave it out of the model'
        )
    if len(levels) > MOST_LEVELS and numeric_levels(levels) is not None:
        raise AnalysisError(
            f'factor "{name}": expected at most {MOST_LEVELS} levels; got {len(levels)} different numbers. '
            f'To take {name} as a number, write "I({name})"'
        )
    return tuple(levels)
