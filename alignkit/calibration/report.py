"""The calibration on paper: every figure as JSON and CSV, a table to read, one figure to look at."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignkit.calibration.rates import Calibration, Rate, Section
from alignkit.calibration.scenarios import CELLS, Scenario

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MARKS = {True: " ✓", False: " ✗", None: ""}
TALL: tuple[Section, ...] = ("tuned", "power of grades")
"""Sections with many figures and few kinds of studies: a row for each figure, with its interval."""
SECTIONS: dict[Section, tuple[str, str]] = {
    "one claim": (
        "One claim",
        "One contrast per seed. The target of the exact test is the largest size up to 5% that its p-values allow. The "
        "functions for one study analyse a sample of the tables, and must give the same numbers.",
    ),
    "family": (
        "A family of ten claims",
        "The claims are independent. A false verdict is a difference where there is none, or an equivalence at the "
        "margin.",
    ),
    "tuned": (
        "Verdicts and grades of studies that tune themselves",
        "A family of three claims over eight cells, every arm at six rates; each seed averages the rates within one "
        "standard error of its best validation accuracy (300 samples), inside the simulation. An angle changes by 2 "
        "from a rate to the next. The smallest effect that matters is 5 standard errors of a tuned contrast. A panel "
        "asks at two places, in two modes, of the step, in two layers, at each seed's best rate and at equal steps. "
        "*Another place* are the first three core rows after the declared one, *another way* the last three. Contrasts "
        "are found on arrays and judged by the functions that judge records; *records to grades* takes two studies of "
        "each batch the whole way and asks for the same numbers, verdicts and grades. *Coverage*: the two arms "
        "have their best rates one step apart, and the true contrast is the mean of 20,000 studies. "
        "A claim with a moderator has the same effect at both levels. *Best cells*: of several that are the best, one.",
    ),
    "models": (
        "Fitted models",
        "Factors of two and of four levels (three layers) without an effect. Only over-rejection is an error; an "
        "interval of the two-level effect misses exactly when its test rejects. An sd ratio of 3 breaks the sphericity "
        "of four levels: the factorial model's F is corrected for that, the mixed model's is not.",
    ),
    "answers": (
        "Thresholds and mediation",
        "Six widths with a line, a bend or a smooth curve; an indirect "
        "effect of 0 or a half. Only more errors than stated are wrong.",
    ),
    "advice": (
        "Recommendations",
        "Ten practices in a fraction of 16 cells, taken from records to verdicts and to what the recommendations say. "
        "With no effects, any advice for or against a practice is false; with half of the effects at the margin, "
        "so is one against those, or a word that they do not matter. No practice changes the accuracy, of which any "
        "word is false. *Diverging* is the share of runs at the first practice's last level that is lost because it "
        "is the worst.",
    ),
    "power": (
        "Power",
        "Paired methods: the effect is 1 sd of the per-seed contrast in a complete study, the margin 5 of its standard "
        "errors; the target of the t test is that of the noncentral t. Models: the last level lies 1 residual sd of a "
        "run above all others.",
    ),
    "power of grades": (
        "How often grades are given where they are true",
        "Effects are in sds over seeds of a tuned contrast. *Robust* and *contested* are shares of claims, *depends* "
        "of studies. A run that fails at one rate leaves that rate out. An arm that fails under a seed at every rate "
        "counts as 90, some 30 above the others: one such arm moves its seed's contrast by more than the margin, so "
        "that a null is no longer shown to be equivalent, which is no error, and no answer. *Lognormal*: effects vary "
        "over seeds by 2, lognormally; where the long tail points to 0, a mean at the margin is too often called "
        "equivalent.",
    ),
    "comparison": (
        "For comparison, not offered",
        "None of these has to be in bounds. A pooled regression with a block per seed takes the runs of a seed as "
        "independent; bootstrap intervals over few seeds are too short. One rate for all seeds, by a pilot or by the "
        "same seeds, is shared: what another choice would have changed is in no interval. (A panel shows such a row, "
        "and grades nothing by it.)",
    ),
}  # fmt: skip


def write_calibration(result: Calibration, out: str | Path) -> Path:
    """Write calibration.json, .csv, .md and .svg into `out`, and give the path of the Markdown page.

    The same result gives the same bytes.
    """
    from alignkit.figures.style import save_svg
    from alignkit.records.files import write_bytes, write_text

    out = Path(out)
    csv = io.StringIO()
    result.to_frame().to_csv(csv, index=False, lineterminator="\n", float_format="%.6g")
    write_text(out / "calibration.csv", csv.getvalue())
    write_text(out / "calibration.json", json.dumps(_json(result), indent=1, allow_nan=False) + "\n")
    write_bytes(out / "calibration.svg", save_svg(calibration_figure(result), name="calibration"))
    page = out / "calibration.md"
    write_text(page, calibration_page(result))
    return page


def calibration_page(result: Calibration) -> str:
    """The calibration as Markdown: what was found, then a row per scenario and a column per method."""
    lines = [
        "# Calibration",
        "",
        f"How often alignkit's tests and intervals err, in simulated studies whose truth is known: "
        f"{result.replicates:,} per scenario for the paired methods (of ten claims each), "
        f"{result.model_replicates:,} for the models, fewer for what takes long.",
        "",
        _summary(result),
        "",
        "![Error rates of every method at a nominal 5%](calibration.svg)",
        "",
        "## How to read it",
        "",
        f"A study has a run per seed and cell, {CELLS} cells per level of a factor (the models: 2 by 4 cells). Seeds "
        "and cells differ. The unit is the residual sd at a factor's first level. *Effect sd* is how much a factor's "
        "effect varies over seeds, *sd ratio* the residual sd at its last level, *missing* the share of runs without a "
        "value, lost at random. In the *skewed* studies residuals and effects are exponential: a stress test, which is "
        "not required to be in bounds.",
        "",
        f"✓ and ✗ say whether the rate's simultaneous {result.confidence:.0%} Monte Carlo interval (Clopper-Pearson, "
        f'Bonferroni over {result.tested} figures) allows the target. "= 5%" is wrong on either side, "≤ 5%" only '
        "above. A rate without a mark is reported. Intervals and counts are in calibration.csv.",
        "",
    ]
    for section, (title, text) in SECTIONS.items():
        rates = [rate for rate in result.rates if rate.section == section]
        if rates:
            lines += [f"## {title}", "", text, "", *(_tall_table if section in TALL else _table)(rates), ""]
    return "\n".join(lines).rstrip() + "\n"


def calibration_figure(result: Calibration) -> Figure:
    """Every error rate at a nominal 5%: a row per method, a dot per scenario, hollow where out of bounds."""
    import matplotlib as mpl
    from matplotlib.lines import Line2D
    from matplotlib.ticker import MultipleLocator, PercentFormatter

    from alignkit.figures.style import FAINT, GRID, INK, STYLE, finish, ordered_colours, panels_of

    shown = [rate for rate in result.rates if rate.target in (0.05, 0.95) or rate.quantity == "type I error"]
    shown = [rate for rate in shown if rate.trials]
    shown.sort(key=lambda rate: list(SECTIONS).index(rate.section))
    rows = list(dict.fromkeys((rate.method, rate.quantity) for rate in shown))
    seeds = sorted({rate.scenario.n_seeds for rate in shown})
    colours = dict(zip(seeds, ordered_colours(len(seeds)), strict=True))
    offered = {(rate.method, rate.quantity) for rate in shown if rate.section != "comparison"}
    with mpl.rc_context(STYLE):
        figure, (axes,) = panels_of(1, columns=1, height=0.42 * len(rows), extra=1.2)
        axes.axvline(0.05, color=INK, lw=0.8)
        for rate in shown:
            y = rows.index((rate.method, rate.quantity)) + 0.05 + 0.14 * seeds.index(rate.scenario.n_seeds)
            x = 1 - rate.rate if rate.target == 0.95 else rate.rate
            colour = FAINT if rate.scenario.skewed else colours[rate.scenario.n_seeds]
            marker = "D" if rate.scenario.skewed else "o"
            axes.plot(x, y, marker, ms=3.2, mew=0.9, color=colour, mfc="white" if rate.inside is False else colour)
        box = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}
        for y, (method, quantity) in enumerate(rows):
            kind = "" if quantity in ("coverage", "type I error") else f": {quantity.removeprefix('type I error, ')}"
            place = axes.get_yaxis_transform()
            # A name stands above its own dots, in a strip that a line parts from the row before.
            name = axes.text(0.01, y - 0.22, f"{method}{kind}", transform=place, fontsize=7.5, va="center", bbox=box)
            name.set_in_layout(False)
            axes.axhline(y - 0.45, color=GRID, lw=0.6)
        if len(offered) < len(rows):
            axes.axhline(len(offered) - 0.45, color=INK, lw=0.7)
            axes.annotate("not offered, for comparison", (1, len(offered) - 0.22), fontsize=7.5, color=INK, ha="right",
                          va="center", xycoords=axes.get_yaxis_transform())  # fmt: skip
        axes.yaxis.grid(False)
        axes.set_ylim(len(rows) - 0.45, -0.5)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MultipleLocator(0.05))
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.set_xlabel("rejected, or not covered, though the null is true (nominal 5%)")
        handles = [Line2D([], [], ls="", marker="o", ms=4, color=colours[n], label=f"{n} seeds") for n in seeds]
        handles.append(Line2D([], [], ls="", marker="o", ms=4, color=INK, mfc="white", label="out of bounds"))
        if any(rate.scenario.skewed for rate in shown):
            handles.append(Line2D([], [], ls="", marker="D", ms=4, color=FAINT, label="skewed (stress)"))
        finish(figure, "How often each method errs where the truth is known", handles)
    return figure


def _summary(result: Calibration) -> str:
    undefined = sum(rate.undefined for rate in result.rates)
    answers = f" {undefined:,} studies gave a method no answer; they count as not rejected, not covered."
    answers = answers * (undefined > 0) + _stressed(result)
    if not result.outside:
        return f"**All {result.tested} figures are within simultaneous {result.confidence:.0%} bounds.**{answers}"
    listing = "\n".join(
        f"- {rate.method}, {rate.quantity}, {rate.scenario.label}: {_percent(rate.rate)} "
        f"[{_percent(rate.low)}, {_percent(rate.high)}], target{_target([rate])}"
        for rate in result.outside
    )
    return f"**{len(result.outside)} of {result.tested} figures are out of bounds:**{answers}\n\n{listing}"


def _stressed(result: Calibration) -> str:
    """What the skewed studies, which need not be in bounds, do to what alignkit offers."""
    rates = [rate for rate in result.rates if rate.scenario.skewed and rate.section != "comparison"]
    out = [rate for rate in rates if rate.inside is False]
    if not out:
        return ""
    worst = max(out, key=lambda rate: abs(rate.rate - rate.target))
    return (
        f" The skewed studies are no part of that: of them {len(out)} of "
        f"{sum(rate.inside is not None for rate in rates)} figures are out of bounds, the furthest {worst.method}, "
        f"{worst.quantity}, {worst.scenario.n_seeds} seeds: {_percent(worst.rate)}{_target([worst])}."
    )


def _table(rates: Sequence[Rate]) -> list[str]:
    columns: dict[tuple[str, str], dict[Scenario, Rate]] = {}
    for rate in rates:
        columns.setdefault((rate.method, rate.quantity), {})[rate.scenario] = rate
    heads = [f"{method}: {quantity}{_target(column.values())}" for (method, quantity), column in columns.items()]
    lines = ["| seeds | effect sd | sd ratio | missing | trials | " + " | ".join(heads) + " |"]
    lines.append("|" + "---:|" * (5 + len(columns)))
    for scenario in dict.fromkeys(rate.scenario for rate in rates):
        cells = [_cell(column.get(scenario)) for column in columns.values()]
        trials = sorted({column[scenario].trials for column in columns.values() if scenario in column})
        lines.append(
            f"| {_scenario(scenario)} | {' or '.join(f'{n:,}' for n in trials if n) or 'none'} | "
            + " | ".join(cells)
            + " |"
        )
    return lines


def _tall_table(rates: Sequence[Rate]) -> list[str]:
    scenarios = list(dict.fromkeys(rate.scenario for rate in rates))
    rows: dict[tuple[str, str], dict[Scenario, Rate]] = {}
    for rate in rates:
        rows.setdefault((rate.method, rate.quantity), {})[rate.scenario] = rate
    heads = [f"{scenario.n_seeds} seeds, effect sd {scenario.effect_sd:g}" for scenario in scenarios]
    lines = [
        "| method | of the studies | " + " | ".join(heads) + " | trials |",
        "|---|---|" + "---:|" * (len(heads) + 1),
    ]
    for (method, quantity), row in rows.items():
        trials = " or ".join(f"{n:,}" for n in sorted({rate.trials for rate in row.values()}))
        cells = [_with_interval(row[scenario]) if scenario in row else "" for scenario in scenarios]
        lines.append(f"| {method} | {quantity}{_target(row.values())} | {' | '.join(cells)} | {trials} |")
    return lines


def _with_interval(rate: Rate) -> str:
    return f"{_percent(rate.rate)} [{_percent(rate.low, 1)}, {_percent(rate.high, 1)}]{MARKS[rate.inside]}"


def _scenario(scenario: Scenario) -> str:
    missing = f"{scenario.missing:.0%}{', skewed' if scenario.skewed else ''}"
    missing = f"{scenario.diverging:.0%} diverging" if scenario.diverging else missing
    return f"{scenario.n_seeds} | {scenario.effect_sd:g} | {scenario.sd_ratio:g} | {missing}"


def _cell(rate: Rate | None) -> str:
    if rate is None:
        return ""
    return f"{_percent(rate.rate)}{MARKS[rate.inside]}" if rate.trials else rate.note


def _target(rates: Iterable[Rate]) -> str:
    """The targets of a column, in brackets; empty where it has none."""
    signs = {"equal": "=", "at most": "≤"}
    targets = {(rate.side, round(rate.target, 6)) for rate in rates if rate.side in signs and rate.trials}
    if not targets:
        return ""
    sides = {side for side, _ in targets}
    if len(targets) == 1:
        side, target = targets.pop()
        return f" ({signs[side]} {_percent(target, 0)})"
    return f" ({signs[sides.pop()]} target)" if len(sides) == 1 else ""


def _percent(rate: float, digits: int = 2) -> str:
    return f"{100 * rate:.{digits}f}%"


def _json(result: Calibration) -> dict[str, Any]:
    frame = result.to_frame().astype(object)
    rows = [{name: _plain(value) for name, value in row.items()} for row in frame.to_dict("records")]
    return {
        "replicates": result.replicates,
        "model_replicates": result.model_replicates,
        "seed": result.seed,
        "confidence": result.confidence,
        "tested": result.tested,
        "outside": len(result.outside),
        "versions": result.versions,
        "rates": rows,
    }


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
