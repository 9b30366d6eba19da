"""What alignment depends on: a factorial model with the seed as replicate."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from alignkit.columns import label_of
from alignkit.errors import AnalysisError
from alignkit.figures.factorial import explained, marginal_effects, term_name
from alignkit.records.rows import final_values
from alignkit.report.analysis import Analysis, varying_factors
from alignkit.report.charts import Chart
from alignkit.report.section import Section
from alignkit.report.tables import Table
from alignkit.stats.contrasts.multiplicity import benjamini_hochberg
from alignkit.stats.models.factorial import FactorialFit, fit_factorial
from alignkit.stats.models.margins import marginal_means
from alignkit.text import count, listed, number, p_text, rule_name, slug

PANELS = 4
"""How many interactions are drawn."""
SHOWN = 15
"""How many terms the page's table shows; the CSV has all."""


@dataclass(frozen=True)
class Model:
    """The factorial model of alignment under one rule, in the design that varies most."""

    rule: str
    design: str
    factors: tuple[str, ...]
    table: pd.DataFrame
    fit: FactorialFit
    notes: tuple[str, ...]


def alignment_model(analysis: Analysis, rule: str) -> Model | None:
    """The factors of the main design and, where its cells can tell them apart, their two-factor interactions."""
    response = analysis.alignment
    factors = varying_factors(analysis.records, rule=rule, design=analysis.design)
    if response is None or not factors:
        return None
    table = final_values(analysis.records, rule=rule, design=analysis.design, response=response)
    notes: tuple[str, ...] = ()
    try:
        fit = fit_factorial(table, factors, interactions=2 if len(factors) > 1 else 1)
    except AnalysisError as error:
        if len(factors) == 1:
            raise
        fit = fit_factorial(table, factors, interactions=1)
        notes = (f"Main effects only: {error}.",)
    return Model(rule, analysis.design, tuple(factors), table, fit, notes)


def model(analysis: Analysis) -> Section | None:
    """The shares of alignment's variation that factors and their interactions explain, a model for each taught rule."""
    found = []
    for rule in (rule for rule in analysis.rules if rule != "bp"):
        made = alignment_model(analysis, rule)
        if made is not None:
            found.append(made)
    if not found:
        return None
    answers: list[str] = []
    tables, charts, notes = [], [], []
    for made in found:
        anova = made.fit.anova().sort_values("generalised_r2", ascending=False, ignore_index=True)
        # Terms that nobody declared are exploration.
        anova.insert(list(anova).index("p") + 1, "p_adjusted", benjamini_hochberg(anova["p"].to_numpy()))
        answers.append(_answer(made, anova))
        tables.append(_anova_table(analysis, made, anova))
        charts += _charts(analysis, made, anova)
        notes += [*made.notes, *(f"{warning[0].upper()}{warning[1:]}." for warning in made.fit.warnings)]
        notes.append(_diagnosed(made))
    return Section(tuple(answers), tuple(tables), tuple(charts), tuple(dict.fromkeys(notes)))


def _answer(made: Model, anova: pd.DataFrame) -> str:
    main = anova[~anova["term"].str.contains(":")]
    interactions = anova[anova["term"].str.contains(":")]
    total = anova["ss"].sum()
    text = f"Under {rule_name(made.rule)}, "
    if len(anova) == 1:
        text += f"{term_name(anova['term'].iloc[0])} explains {anova['generalised_r2'].iloc[0]:.0%} of all variation."
    else:
        shares = (f"{term_name(row['term'])} ({row['ss'] / total:.0%})" for row in anova.head(3).to_dict("records"))
        text += f"most of what the factors explain comes from {listed(shares)}."
    if len(interactions):
        certain = interactions[interactions["p_adjusted"] < 0.05]
        text += (
            f" Interactions make up {interactions['ss'].sum() / total:.0%} of it: {len(certain)} of "
            f"{len(interactions)} have an adjusted p below .05"
        )
        text += ", so an effect is that of its study's mix of the other factors." if len(certain) else "."
    weak = main[main["p_adjusted"] >= 0.05]["term"]
    if len(weak):
        text += f" No main effect of {listed(term_name(term) for term in weak)} is seen."
    return text


def _anova_table(analysis: Analysis, made: Model, anova: pd.DataFrame) -> Table:
    response = str(analysis.alignment)
    rows = tuple(
        (
            term_name(row["term"]),
            f"{row['df']:g}, {row['df_error']:g}",
            number(row["F"], 1),
            p_text(row["p"]),
            p_text(row["p_adjusted"]),
            number(row["partial_r2"], 3),
            number(row["generalised_r2"], 3),
        )
        for row in anova.head(SHOWN).to_dict("records")
    )
    columns = ("term", "df", "F", "p", "adjusted p", "partial R²", "generalised R²")
    more = f" The {SHOWN} largest of {len(anova)} terms." if len(anova) > SHOWN else ""
    caption = (
        f"{rule_name(made.rule)}: the {label_of(response)} at the end of training, by factors and pairs of factors of "
        f"the design {made.design}. F is taken in each term's own stratum, term by seed ({made.fit.method}), with "
        "Greenhouse and Geisser's correction; the adjusted p is Benjamini and Hochberg's over the model's terms, which "
        "nobody declared. Partial R² says how repeatable a term is over seeds, generalised R² how much of all "
        "variation it explains."
    )
    name = "model" if made.rule == analysis.rules[0] else f"model_{slug(made.rule)}"
    return Table(name, caption + more, columns, rows, anova, frozenset(columns[1:]))


def _charts(analysis: Analysis, made: Model, anova: pd.DataFrame) -> list[Chart]:
    if len(anova) == 1:  # nothing to rank
        return []
    response = str(analysis.alignment)
    suffix = "" if made.rule == analysis.rules[0] else f"_{slug(made.rule)}"
    top = anova.iloc[0]
    found = [
        Chart(
            f"model_terms{suffix}",
            f"What alignment depends on, {rule_name(made.rule)}",
            f"Of all terms, {term_name(top['term'])} explains most of the {label_of(response)}.",
            "Generalised R² of each term of the factorial model; filled bars have an adjusted p below .05. A bar is "
            "the term's sum of squares over itself and all that no term explains, differences between seeds included.",
            explained(anova, response=response),
        )
    ]
    pairs = [tuple(term.split(":")) for term in anova["term"] if term.count(":") == 1][:PANELS]
    if not pairs:
        return found
    panels, drawn = [], []
    for first, second in pairs:
        # more levels on the axis, fewer lines
        more_levels = len(made.fit.design.factors[first]) >= len(made.fit.design.factors[second])
        x, line = (first, second) if more_levels else (second, first)
        panels.append(marginal_means(made.fit, [line, x]).to_frame())
        drawn.append((x, line))
    largest = anova[anova["term"].str.contains(":")].iloc[0]
    found.append(
        Chart(
            f"model_means{suffix}",
            f"Marginal means, {rule_name(made.rule)}",
            f"The largest interaction is that of {term_name(largest['term'])} "
            f"(adjusted p {p_text(largest['p_adjusted'])}).",
            "Marginal means of the model, all other factors averaged with equal weights; bars: 95% t intervals over "
            "seeds. Parallel lines would be effects that add.",
            marginal_effects(panels, pairs=drawn, response=response),
        )
    )
    return found


def _diagnosed(made: Model) -> str:
    diagnostics = made.fit.diagnostics()
    influence = diagnostics.influence.dropna(subset=["change_in_se"])
    p = diagnostics.breusch_pagan_p
    uneven = (
        " (the residual variance changes with the factors; errors taken over seeds allow for it)" if p < 0.05 else ""
    )
    text = (
        f"{rule_name(made.rule)}: Breusch-Pagan p {p_text(p)}{uneven}; condition number "
        f"{number(diagnostics.condition_number, 1)}"
    )
    if len(influence):
        largest = influence.iloc[int(influence["change_in_se"].abs().argmax())]
        text += (
            f"; leaving out one of {count(made.fit.n_seeds, 'seed')} moves a coefficient by at most "
            f"{number(abs(largest['change_in_se']), 1)} standard errors (seed {largest['seed']}, "
            f"{largest['coefficient']})"
        )
    return text + "."
