"""A table once, in its forms: HTML cells, CSV with all digits, LaTeX."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype

from alignkit.text import ABSENT, for_spreadsheets, number

_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "°": r"$^\circ$", "→": r"$\to$", "≥": r"$\geq$",
    "<": r"$<$", ">": r"$>$", "±": r"$\pm$", "…": r"\ldots{}",
    "\N{MINUS SIGN}": r"$-$", "\N{EN DASH}": "--", "\N{MULTIPLICATION SIGN}": r"$\times$",
}  # fmt: skip


T = TypeVar("T")


@dataclass(frozen=True)
class Table:
    """What a reader sees (`columns`, `rows` of text) and what a machine reads (`data`).

    `numeric` names the columns that are aligned right. `rows` hold text alone, ready to be escaped.
    """

    name: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    data: pd.DataFrame
    numeric: frozenset[str] = frozenset()

    @classmethod
    def each(
        cls,
        name: str,
        caption: str,
        things: Iterable[T],
        data: pd.DataFrame,
        *,
        columns: Sequence[tuple[str, Callable[[T], str]]],
        words: int = 1,
    ) -> Table:
        """A row for each thing, and a column for each head with what makes its cell; the first are `words`."""
        heads = tuple(head for head, _ in columns)
        rows = tuple(tuple(cell(thing) for _, cell in columns) for thing in things)
        return cls(name, caption, heads, rows, data, frozenset(heads[words:]))

    @classmethod
    def of(cls, data: pd.DataFrame, *, name: str, caption: str, digits: int = 3) -> Table:
        """A table as it stands: fractions to so many digits, what is missing as a dash, columns in words.

        >>> Table.of(pd.DataFrame({"rule": ["dfa"], "mean_angle": [60.127]}), name="t", caption="").rows
        (('dfa', '60.127'),)
        """
        columns = tuple(str(column).replace("_", " ") for column in data)
        rows = tuple(tuple(_cell(value, digits) for value in row) for row in data.itertuples(index=False, name=None))
        kinds = zip(columns, data.dtypes, strict=True)
        return cls(name, caption, columns, rows, data, frozenset(c for c, kind in kinds if is_numeric_dtype(kind)))

    def to_csv(self) -> str:
        """Six significant digits; what is missing is empty."""
        return str(for_spreadsheets(self.data).to_csv(index=False, float_format="%.6g", lineterminator="\n"))

    def to_latex(self) -> str:
        """A booktabs table of what the page shows, no wider than the line."""
        spec = "".join("r" if column in self.numeric else "l" for column in self.columns)
        lines = [
            r"% needs \usepackage{booktabs,graphicx}",
            r"\begin{table}",
            rf"\caption{{{latex_text(self.caption)}}}",
            rf"\label{{tab:{self.name}}}",
            r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{% narrower where it is too wide",
            rf"\begin{{tabular}}{{{spec}}}",
            r"\toprule",
            " & ".join(map(latex_text, self.columns)) + r" \\",
            r"\midrule",
            *(" & ".join(map(latex_text, row)) + r" \\" for row in self.rows),
            r"\bottomrule",
            r"\end{tabular}}",
            r"\end{table}",
        ]
        return "\n".join(lines) + "\n"


def _cell(value: Any, digits: int) -> str:
    if pd.isna(value):
        return ABSENT
    return number(float(value), digits) if isinstance(value, float | np.floating) else str(value)


def latex_text(text: str) -> str:
    r"""Text as LaTeX prints it.

    >>> print(latex_text("signal_cosine: 6.0°"))
    signal\_cosine: 6.0$^\circ$
    """
    return "".join(_LATEX.get(character, character) for character in text)
