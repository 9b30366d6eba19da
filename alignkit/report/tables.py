"""A table once, in its forms: HTML cells, CSV with all digits, LaTeX."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "°": r"$^\circ$", "→": r"$\to$", "≥": r"$\geq$",
    "<": r"$<$", ">": r"$>$", "±": r"$\pm$", "…": r"\ldots{}",
    "\N{MINUS SIGN}": r"$-$", "\N{EN DASH}": "--", "\N{MULTIPLICATION SIGN}": r"$\times$",
}  # fmt: skip


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

    def to_csv(self) -> str:
        """Six significant digits; what is missing is empty."""
        return str(self.data.to_csv(index=False, float_format="%.6g", lineterminator="\n"))

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


def latex_text(text: str) -> str:
    r"""Text as LaTeX prints it.

    >>> print(latex_text("signal_cosine: 6.0°"))
    signal\_cosine: 6.0$^\circ$
    """
    return "".join(_LATEX.get(character, character) for character in text)
