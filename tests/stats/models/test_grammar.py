"""A formula names a model; it is not Python."""

from __future__ import annotations

import random

import pandas as pd
import pytest

from alignkit.errors import AnalysisError
from alignkit.stats.models.design import Design
from alignkit.stats.models.grammar import MOST_TERMS, expression, terms_of

ROWS = [
    (seed, width, norm, width + seed * (norm == "yes"), seed + width / 3)
    for seed in range(3)
    for width in (1, 2, 4)
    for norm in ("no", "yes")
]
TABLE = pd.DataFrame(ROWS, columns=["seed", "width", "norm", "value", "log"])


@pytest.mark.parametrize(
    ("term", "columns"),
    [
        ("width", 2), ("log2(width)", 1), ("np.log2(width)", 1), ("I(-width // 3 % 2)", 1), ("I(2**3 * width)", 1),
        ("np.maximum(width - 2, 0)", 1), ("center(log2(width))", 1), ("standardize(width, ddof=1)", 1),
        ("I(width > 2)", 1), ("C(width)", 2), ("log(log + 1)", 1), ("log", 7), ("I(log)", 1),
    ],
)  # fmt: skip
def test_columns_arithmetic_and_named_functions_are_terms(term, columns):
    assert Design.of(TABLE, f"norm + {term}").x.shape[1] == 2 + columns


@pytest.mark.parametrize(
    "term",
    [
        "np.__builtins__['print']('owned')*width", "width.__class__", "width.real", "np.linalg.norm(width)",
        "np.load(width)", "print(width)", "__import__('os')", "I((lambda: width)())", "I([width for width in [1]])",
        "I(width if width else 1)", "I(width and width)", "I(f'{width}')", "I(width := 3)", "I(width)[0]", "{width}",
        "log(width, width)", "log2(width, out=width)", "I(*width)", "standardize(width, ddof='1')", "I(width < 2 < 3)",
        "I(True * width)", "I(1j * width)", "'width'", "np", "log2", "I(width @ width)", "I(~width)",
    ],
)  # fmt: skip
def test_python_beyond_that_is_none(term):
    with pytest.raises(AnalysisError, match="expected"):
        Design.of(TABLE, f"norm + {term}")


@pytest.mark.parametrize("power", ["9**9**9**9", "0**-1", "(-1)**.5", "1/0", "9" * 400])
def test_numbers_that_would_take_for_ever_or_are_none(power):
    with pytest.raises(AnalysisError, match="expected numbers that a float can hold"):
        Design.of(TABLE, f"norm + I({power} * width)")


@pytest.mark.parametrize(
    ("formula", "message"),
    [
        ("norm" + " + norm" * 20_000, "too deeply nested"),
        (f"norm + I({'-' * 30_000}width)", "too deeply nested"),
        ("*".join(f"I(width + {i})" for i in range(40)), f"at most {MOST_TERMS:,} terms"),
        (f"({' + '.join(f'I(width + {i})' for i in range(40))})**{'9' * 30}", f"at most {MOST_TERMS:,} terms"),
        ("norm + 5", "numbers besides '0' and '1'"),
        ("norm + &", "not an operator of formulas"),
        ("norm + (", "Missing|unmatched|unclosed|expected"),
        ("norm + \0", "expected a model formula"),
    ],
)
def test_formulas_that_are_none(formula, message):
    with pytest.raises(AnalysisError, match=message):
        Design.of(TABLE, formula)


def test_terms_are_counted_as_patsy_counts_them():
    names = [f"x{i}" for i in range(10)]
    assert len(terms_of("*".join(names)).rhs_termlist) == 2**10
    assert len(terms_of(f"({'+'.join(names)})**3").rhs_termlist) == 1 + 10 + 45 + 120
    with pytest.raises(AnalysisError, match="at most"):
        terms_of("*".join([*names, "x10"]))


def test_an_expression_keeps_its_meaning():
    assert expression("I( width**2 )").body.args[0].right.value == 2


PIECES = [
    "norm", "width", "log", "(", ")", "+", "-", "*", "**", "/", ":", "~", "I(", "log(", "np.", "np", 'Q("', '")', "'",
    "1", "0", "9" * 30, ".5", ",", " ", "\n", "[", "]", "{", "}", "lambda", "=", "<", "#", "\\", "\0", "½", "_",
    "__class__", ".", "C(", "center(", "@", "%", "|", "&", "if", "for", "f'",
]  # fmt: skip


def test_any_text_is_a_model_or_refused_in_words():
    generator = random.Random(0)
    for _ in range(1500):
        formula = "norm+" + "".join(generator.choices(PIECES, k=generator.randint(1, 8)))
        try:
            Design.of(TABLE, formula)
        except AnalysisError as error:
            assert str(error)
