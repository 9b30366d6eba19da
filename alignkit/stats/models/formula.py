"""From a formula, or a list of factors, to the columns of a model matrix.

patsy does the parsing and the coding. What is decided here: a column named plainly is a categorical
factor in deviation coding, whatever its type, and a number is written as an expression.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
import patsy

from alignkit.errors import AnalysisError, nearest
from alignkit.stats.models.grammar import FUNCTIONS, PATSY, columns_in, expression, terms_of
from alignkit.stats.tables.checks import names_of

Interactions = int | Literal["all"]

_CATEGORICAL = re.compile(r"""^(?:C\(\s*)?(?:Q\(\s*(["'])(?P<quoted>.*)\1\s*\)|(?P<plain>[^\W\d]\w*))(?:\s*\))?$""")


def formula_text(table: pd.DataFrame, model: str | Sequence[str], interactions: Interactions | None) -> str:
    """The model as a formula; a list of factors gets their interactions up to an order, 2 by default."""
    if isinstance(model, str):
        if interactions is not None:
            raise AnalysisError(
                f'expected interactions within the formula, as in "a * b"; got interactions={interactions!r} '
                f'beside "{model}". Give a list of factors, or leave interactions out'
            )
        return model.strip()
    factors = names_of("model", model)
    if not factors:
        raise AnalysisError('model: expected a formula or a list of factors; got none. Write "norm * width"')
    atoms = [name if name.isidentifier() or name not in table.columns else f"Q({name!r})" for name in factors]
    order = 2 if interactions is None else interactions
    if order == "all":
        order = len(atoms)
    if not isinstance(order, int) or isinstance(order, bool) or order < 1:
        raise AnalysisError(f'expected interactions to be "all" or an order of at least 1; got {order!r}')
    joined = " + ".join(atoms)
    return joined if order == 1 or len(atoms) == 1 else f"({joined})**{min(order, len(atoms))}"


def parse_formula(formula: str) -> Any:
    """patsy's description of a formula; a model without an intercept is refused."""
    model = terms_of(formula)
    if patsy.Term([]) not in model.rhs_termlist:
        raise AnalysisError(f'expected a model with an intercept; got "{formula}". Leave out the 0 or -1')
    return model


def left_hand_side(model: Any, response: str | None) -> str:
    """The response that a formula names; it must be a column, and agree with one that was given beside it."""
    terms = model.lhs_termlist
    names = [factor.code for term in terms for factor in term.factors]
    match = _CATEGORICAL.match(names[0]) if len(names) == len(terms) == 1 else None
    if match is None or names[0].startswith("C("):
        raise AnalysisError(
            f"expected one column as the response; got {' + '.join(names)}. Compute it as a column of its own"
        )
    name = match["quoted"] or match["plain"]
    if response not in (None, name):
        raise AnalysisError(
            f'expected one response; got "{name}" in the formula and "{response}" beside it. Leave one of them out'
        )
    return str(name)


def predictor(factor: Any, table: pd.DataFrame) -> tuple[str, tuple[str, ...] | None]:
    """The column of a categorical factor and None, or an expression and the numeric columns in it."""
    code = factor.code
    if match := _CATEGORICAL.match(code):
        name = match["quoted"] or match["plain"]
        if name not in table.columns:
            raise AnalysisError(f'expected a column "{name}"; {nearest(name, map(str, table.columns))}')
        return name, None
    if code.startswith("C(") and "C" not in table.columns:
        raise AnalysisError(f'"{code}": expected a factor named plainly; it is coded as deviations from the mean')
    columns = tuple(dict.fromkeys(node.id for node in columns_in(expression(code))))
    for name in columns:
        if name not in table.columns:
            known = {*map(str, table.columns), *FUNCTIONS, *PATSY}
            raise AnalysisError(f'"{code}": "{name}" is no column; {nearest(name, known)}')
    if not columns:
        raise AnalysisError(f'expected a column in every term; got "{code}"')
    return code, columns


def model_matrix(
    model: Any, atoms: Mapping[Any, Any], values: dict[str, Any], formula: str
) -> tuple[Any, dict[str, str]]:
    """The model matrix, every plain column in deviation coding; and what each of patsy's factors is called."""
    if not atoms:
        raise AnalysisError(f'expected at least one predictor; got "{formula}"')
    swap, label = {}, {}
    for atom, (name, columns) in atoms.items():
        swap[atom] = patsy.EvalFactor(f"C(Q({factor_name(name)!r}), Sum)" if columns is None else _with_numbers(name))
        label[swap[atom].code] = name
    terms = [patsy.Term([swap[atom] for atom in term.factors]) for term in model.rhs_termlist]
    try:
        with np.errstate(all="ignore"):
            description = patsy.ModelDesc([], list(dict.fromkeys(terms)))
            return patsy.dmatrix(description, values, patsy.EvalEnvironment([FUNCTIONS])), label
    except patsy.PatsyError as error:
        raise AnalysisError(f'"{formula}": {str(error).splitlines()[0]}') from None


def factor_name(column: str) -> str:
    """What a column is called in patsy's formula as a factor: not C, Q or I, whatever its own name."""
    return f"{column}_as_factor"


def number_name(column: str) -> str:
    """What a column is called in an expression, apart from the factor of the same name."""
    return f"{column}_as_number"


def _with_numbers(code: str) -> str:
    tree = expression(code)
    for node in columns_in(tree):
        node.id = number_name(node.id)
    return ast.unparse(tree)


def column_label(name: str, label: Mapping[str, str]) -> str:
    """A coefficient's name in the user's words, such as "norm[batch]:log2(width)"."""
    for code in sorted(label, key=len, reverse=True):
        name = name.replace(code, label[code])
    return name.replace("[S.", "[")
