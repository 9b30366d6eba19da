"""What a formula may say: terms of columns and of arithmetic on them, with a few functions by name.

patsy runs what stands in a term as Python. So nothing reaches it that does not fit the grammar below: a formula may
come from a file of somebody else's, and must not be able to do more than name a model.
"""

from __future__ import annotations

import ast
import math
import re
import tokenize
from typing import Any

import numpy as np
import patsy
from patsy.parse_formula import parse_formula as parse_tree

from alignkit.errors import AnalysisError

FUNCTIONS: dict[str, Any] = {
    "np": np, "log": np.log, "log2": np.log2, "log10": np.log10, "sqrt": np.sqrt, "exp": np.exp,
    "abs": np.abs, "maximum": np.maximum, "minimum": np.minimum,
}  # fmt: skip
"""What a formula may call, as it is or after "np.", besides patsy's own I, center and standardize."""

PATSY = ("I", "center", "standardize")
MOST_TERMS = 2_000

_BINARY = {
    ast.Add: lambda a, b: a + b, ast.Sub: lambda a, b: a - b, ast.Mult: lambda a, b: a * b,
    ast.Div: lambda a, b: a / b, ast.FloorDiv: lambda a, b: a // b, ast.Mod: lambda a, b: a % b,
    ast.Pow: lambda a, b: a**b,
}  # fmt: skip
_COMPARED = (ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.Eq, ast.NotEq)
_ARGUMENTS = {"maximum": 2, "minimum": 2}
_OPTIONS = {"standardize": ("center", "rescale", "ddof")}
_NEVER_CALLED_ALONE = {"np"}


def terms_of(formula: str) -> Any:
    """patsy's description of a formula whose every term fits the grammar."""
    try:
        tree = parse_tree(formula)
        most = _most_terms(tree)
        if most > MOST_TERMS:
            raise AnalysisError(f'expected a model of at most {MOST_TERMS:,} terms; got more in "{_short(formula)}"')
        return patsy.ModelDesc.from_formula(tree)
    except (patsy.PatsyError, SyntaxError, ValueError, tokenize.TokenError, AssertionError) as error:
        # patsy's tokenizer asserts where an operator is no operator of formulas.
        reason = str(error).splitlines()[0] if str(error) else "not an operator of formulas"
        raise AnalysisError(
            f'expected a model formula such as "width * norm"; got "{_short(formula)}" ({reason})'
        ) from None
    except (RecursionError, MemoryError):
        raise AnalysisError(
            f'expected a model formula such as "width * norm"; got one of {len(formula):,} characters that is too '
            "deeply nested. Write it shorter"
        ) from None


def expression(code: str) -> ast.Expression:
    """The syntax of one term's expression, checked: numbers, columns, arithmetic, comparisons, known functions.

    >>> ast.unparse(expression("I(width**2)"))
    'I(width ** 2)'
    >>> expression("width.__class__")
    Traceback (most recent call last):
    alignkit.errors.AnalysisError: "width.__class__": expected numbers, columns, + - * / ** and the functions I, abs, \
center, exp, log, log10, log2, maximum, minimum, sqrt, standardize; got "width.__class__". Compute it as a column of \
its own
    """
    try:
        tree = ast.parse(code, mode="eval")
        _value(tree.body, code)
    except (SyntaxError, ValueError):
        raise AnalysisError(
            f'expected a column or an expression; got "{_short(code)}". Write a name with spaces as Q("…")'
        ) from None
    except (RecursionError, MemoryError):
        raise AnalysisError(
            f"expected a column or an expression; got {len(code):,} characters that are too deeply nested. Compute it "
            "as a column of its own"
        ) from None
    return tree


def columns_in(tree: ast.Expression) -> list[ast.Name]:
    """Where a checked expression reads a column, in order; the names of functions are none."""
    called = {id(part) for node in ast.walk(tree) if isinstance(node, ast.Call) for part in ast.walk(node.func)}
    return [node for node in ast.walk(tree) if isinstance(node, ast.Name) and id(node) not in called]


def _value(node: ast.expr, code: str) -> float | None:
    """What a node without columns amounts to, None for one with columns; an error for what the grammar lacks."""
    if isinstance(node, ast.Name):
        return None
    if (
        isinstance(node, ast.Constant)
        and isinstance(number := node.value, int | float)
        and not isinstance(number, bool)
    ):
        return _finite(lambda: float(number), node, code)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.UAdd | ast.USub):
        inner = _value(node.operand, code)
        return inner if inner is None or isinstance(node.op, ast.UAdd) else -inner
    if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
        left, right = _value(node.left, code), _value(node.right, code)
        if left is None or right is None:
            return None
        # Python works on whole numbers of any length: 9**9**9 would take for ever.
        return _finite(lambda: _BINARY[type(node.op)](left, right), node, code)
    if isinstance(node, ast.Compare) and all(isinstance(operator, _COMPARED) for operator in node.ops):
        if len(node.ops) > 1:
            raise _refused(node, code)
        for part in (node.left, *node.comparators):
            _value(part, code)
        return None
    if isinstance(node, ast.Call):
        _check_call(node, code)
        return None
    raise _refused(node, code)


def _check_call(node: ast.Call, code: str) -> None:
    function = node.func
    if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name) and function.value.id == "np":
        name = function.attr if function.attr in FUNCTIONS else ""
    else:
        name = function.id if isinstance(function, ast.Name) and function.id in {*FUNCTIONS, *PATSY} else ""
    options = _OPTIONS.get(name, ())
    if (
        name in ("", *_NEVER_CALLED_ALONE)
        or len(node.args) != _ARGUMENTS.get(name, 1)
        or not all(
            key.arg in options and isinstance(key.value, ast.Constant) and isinstance(key.value.value, bool | int)
            for key in node.keywords
        )
    ):
        raise _refused(node, code)
    for argument in node.args:
        _value(argument, code)


def _finite(work: Any, node: ast.expr, code: str) -> float:
    try:
        value = work()
    except (ArithmeticError, TypeError):
        value = math.nan
    if isinstance(value, complex) or not math.isfinite(value):
        raise AnalysisError(
            f'"{_short(code)}": expected numbers that a float can hold; got "{_short(ast.unparse(node))}"'
        )
    return float(value)


def _refused(node: ast.expr, code: str) -> AnalysisError:
    names = ", ".join(sorted({*FUNCTIONS, *PATSY} - _NEVER_CALLED_ALONE))
    return AnalysisError(
        f'"{_short(code)}": expected numbers, columns, + - * / ** and the functions {names}; got '
        f'"{_short(ast.unparse(node))}". Compute it as a column of its own'
    )


def _short(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}…"


def _most_terms(node: Any) -> int:
    """A bound of how many terms a formula stands for, as far as one above `MOST_TERMS`."""
    if not node.args:
        return 1
    left, *others = (_most_terms(part) for part in node.args)
    right = others[0] if others else 0
    if node.type == "*":
        most = left + right + left * right
    elif node.type == ":":
        most = left * right
    elif node.type == "**":
        most = _terms_of_power(left, str(node.args[1].token.extra))
    else:
        most = left + right
    return min(most, MOST_TERMS + 1)


def _terms_of_power(terms: int, exponent: str) -> int:
    """The interactions of a number of terms up to an order: of 1, of 2, … of them."""
    most, order = 0, 1
    # An exponent of many digits is no smaller than the number of terms, beyond which there is nothing.
    highest = int(exponent) if re.fullmatch("[0-9]{1,5}", exponent) else terms
    while order <= min(terms, highest) and most <= MOST_TERMS:
        most += math.comb(terms, order)
        order += 1
    return most
