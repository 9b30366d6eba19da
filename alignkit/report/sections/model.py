"""What alignment depends on: a factorial model with the seed as replicate."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from alignkit.claims.analysis import Analysis
from alignkit.columns import label_of
from alignkit.errors import AnalysisError
from alignkit.figures import marginal_means, terms
from alignkit.figures.chart import Chart
from alignkit.figures.terms import term_name
from alignkit.report.section import Answer
from alignkit.report.tables import Table
from alignkit.stats.contrasts.multiplicity import benjamini_hochberg
from alignkit.stats.models.factorial import FactorialFit, fit_factorial
from alignkit.text import count, listed, number, p_text, rule_name, sentence

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
    factors = analysis.varying(rule, analysis.design)
    if response is None or not factors:
        return None
    table = analysis.final(response, rule=rule, design=analysis.design)
    notes: tuple[str, ...] = ()
    try:
        fit = fit_factorial(table, factors, interactions=2 if len(factors) > 1 else 1)
    except AnalysisError as error:
        if len(factors) == 1:
            raise
        fit = fit_factorial(table, factors, interactions=1)
        notes = (f"Main effects only: {error}.",)
    return Model(rule, analysis.design, tuple(factors), table, fit, notes)


def model(analysis: Analysis) -> Answer | None:
    """The shares of alignment's variation that factors and their interactions explain, a model for each taught rule."""
    models = [alignment_model(analysis, rule) for rule in analysis.rules if rule != "bp"]
    found = [made for made in models if made is not None]
    if not found:
        return None
    answers: list[str] = []
    tables: list[Table] = []
    charts: list[Chart] = []
    notes: list[str] = []
    for made in found:
        anova = made.fit.anova().sort_values("generalised_r2", ascending=False, ignore_index=True)
        # Terms that nobody declared are exploration.
        anova.insert(list(anova).index("p") + 1, "p_adjusted", benjamini_hochberg(anova["p"].to_numpy()))
        answers.append(_answer(made, anova))
        tables.append(_anova_table(analysis, made, anova))
        if len(anova) > 1:  # else there is nothing to rank
            of = {"rule": made.rule, "response": analysis.response, "suffix": analysis.suffix(made.rule)}
            drawn = (terms.chart(anova, **of), marginal_means.chart(made.fit, anova, **of))
            charts += [chart for chart in drawn if chart is not None]
        notes += [*made.notes, *(f"{sentence(warning)}." for warning in made.fit.warnings), _diagnosed(made)]
    return Answer(tuple(answers), tuple(tables), tuple(charts), tuple(dict.fromkeys(notes)))


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
    more = f" The {SHOWN} largest of {len(anova)} terms." if len(anova) > SHOWN else ""
    caption = (
        f"{rule_name(made.rule)}: the {label_of(analysis.response)} at the end of training, by factors and pairs of "
        f"factors of the design {made.design}. F is taken in each term's own stratum, term by seed "
        f"({made.fit.method}), with Greenhouse and Geisser's correction; the adjusted p is Benjamini and Hochberg's "
        "over the model's terms, which nobody declared. Partial R² says how repeatable a term is over seeds, "
        "generalised R² how much of all variation it explains."
    )
    shown = anova.head(SHOWN).to_dict("records")
    return Table.each(f"model{analysis.suffix(made.rule)}", caption + more, shown, anova, columns=[
        ("term", lambda row: term_name(row["term"])),
        ("df", lambda row: f"{row['df']:g}, {row['df_error']:g}"),
        ("F", lambda row: number(row["F"], 1)),
        ("p", lambda row: p_text(row["p"])),
        ("adjusted p", lambda row: p_text(row["p_adjusted"])),
        ("partial R²", lambda row: number(row["partial_r2"], 3)),
        ("generalised R²", lambda row: number(row["generalised_r2"], 3)),
    ])  # fmt: skip


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
