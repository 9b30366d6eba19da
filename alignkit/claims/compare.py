"""The two verbs of an analysis: `compare` the levels of one factor, `fit` a model of several.

Both take records, or any tidy table with a seed column, and count the seed as the unit of replication.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import pandas as pd

from alignkit.display import effect_words, p_words, seeds_words, shown
from alignkit.errors import AnalysisError, nearest, require_text
from alignkit.records.rows import AnalysisRows, analysis_rows
from alignkit.records.store import Records
from alignkit.stats.contrasts.contrasts import ADJUSTMENTS, Contrast, contrast, contrast_frame, level_means
from alignkit.stats.contrasts.paired import minimum_seeds, paired_test
from alignkit.stats.models.factorial import repeated_measures_f
from alignkit.stats.models.linear import FTest
from alignkit.stats.tables.checks import levels_given, names_of, require_choice, require_columns
from alignkit.stats.tables.levels import level_column, level_order, level_text
from alignkit.study.claim import Layer
from alignkit.text import count


def _words(comparison: Comparison) -> str:
    of = ", ".join([comparison.factor, comparison.response, *([f"by {comparison.by}"] if comparison.by else [])])
    effects = [
        f"{' to '.join(result.levels)} {effect_words(result.estimate, result.interval, comparison.response)} "
        f"{p_words(result)}"
        for result in comparison.contrasts
    ]
    warned = [count(len(comparison.warnings), "warning")] if comparison.warnings else []
    return f"{of}: {', '.join([*effects, seeds_words(comparison.contrasts[0]), *warned])}"


@shown(words=_words)
@dataclass(frozen=True, eq=False)
class Comparison:
    """How a response differs between the levels of a factor, in `unit`.

    contrasts : each level minus the first, averaged over the other factors; p_adjusted over all of them.
    means : a row per level: the mean over seeds with its t interval, over the cells in which every level has a
        value, so that the levels can be ranked. A contrast has all cells that its own two levels share: where
        runs are missing or the design is not a full grid, it may differ from the difference of two means, and
        `warnings` counts the cells that were left out. See `stats.contrasts.level_means`.
    omnibus : for more than two levels, the F test that none differs (repeated measures over seeds, with
        Greenhouse and Geisser's correction); else None.
    simple_effects : with `by`, the same contrasts at each level of `by`, adjusted as one family.
    interactions : with `by`, how the contrasts change from the first level of `by` to each other one:
        a difference of differences per seed, adjusted as one family. Empty without `by`.
    warnings : whatever the contrasts, their learning rates or missing runs give reason to say.
    """

    factor: str
    levels: tuple[str, ...]
    response: str
    unit: str
    contrasts: tuple[Contrast, ...]
    means: pd.DataFrame
    omnibus: FTest | None = None
    by: str | None = None
    simple_effects: Mapping[str, tuple[Contrast, ...]] = field(default_factory=dict)
    interactions: pd.DataFrame = field(default_factory=pd.DataFrame)
    design: str | None = None
    warnings: tuple[str, ...] = ()

    @property
    def single(self) -> Contrast:
        """The contrast of a comparison of two levels; `AnalysisError` where there are more."""
        if len(self.contrasts) != 1:
            raise AnalysisError(
                f'factor "{self.factor}": expected two levels for a single estimate; got {len(self.levels)} '
                f"({', '.join(self.levels)}). Name two with levels=, or read .contrasts"
            )
        return self.contrasts[0]

    @property
    def estimate(self) -> float:
        """The second level minus the first."""
        return self.single.estimate

    @property
    def interval(self) -> tuple[float, float]:
        """The t interval of the estimate, over seeds."""
        return self.single.interval

    @property
    def p(self) -> float:
        """The exact sign-flip p of the estimate."""
        return self.single.p

    @property
    def df(self) -> int:
        """Seeds less one."""
        return self.single.df

    @property
    def n_seeds(self) -> int:
        """How many seeds have the comparison."""
        return self.single.n_seeds

    @property
    def method(self) -> str:
        """How the estimate, its interval and its p were made."""
        return self.single.method

    def to_frame(self) -> pd.DataFrame:
        """One row per contrast; with `by`, the simple effects follow, their level in the column `by`."""
        frames = [contrast_frame(self.contrasts)]
        if self.by is not None:
            frames[0].insert(0, self.by, "all")
            for at, effects in self.simple_effects.items():
                frames.append(contrast_frame(effects))
                frames[-1].insert(0, self.by, at)
        return pd.concat(frames, ignore_index=True)


def compare(
    records_or_table: Records | pd.DataFrame,
    *,
    factor: str,
    response: str | None = None,
    levels: Sequence[Any] | None = None,
    by: str | None = None,
    rule: str | None = "dfa",
    design: str | None = None,
    summary: Literal["final", "auc"] = "final",
    layer: Layer = "mean",
    mode: str | None = None,
    within: Sequence[str] | None = None,
    seed: str = "seed",
    adjust: Literal["holm", "bh"] = "holm",
) -> Comparison:
    """How far a response moves between the levels of a factor, as one contrast per seed.

    Of records, the runs under `rule` (None: all, with "rule" among the factors) and of `design` are taken, each
    summarised to one number by `response` (an angle in degrees by default), `summary`, `layer` and `mode`, as
    `run_summaries` takes them. Without `design` it is the first that holds all the levels. Of a table, which has a row
    per seed and cell, `response` is a column ("value" by default); rule, design, summary, layer and mode do not apply.

    levels : which levels, the first one being what the others are compared with; all by default.
    by : another factor, at each level of which the comparison is made again, and whose levels' contrasts
        are compared.
    within : the other factors that make a cell; those of the study by default, none for a table.
    adjust : over the contrasts of one family; see `Comparison`.

    It describes as well as tests; to confirm a hypothesis declare a claim, which fixes factor, levels and
    response before the runs. Learning rates and step lengths that differ between the levels, and runs
    without a value, are said in `warnings`.

    >>> rows = [(s, n, 60 + s - 3 * (n == "batch") + s % 2) for s in range(6) for n in ("none", "batch")]
    >>> table = pd.DataFrame(rows, columns=["seed", "norm", "value"])
    >>> result = compare(table, factor="norm")
    >>> result.estimate, result.p, result.n_seeds
    (-3.0, 0.03125, 6)
    """
    analysed = analysis_rows(records_or_table, response, rule=rule, summary=summary, layer=layer, mode=mode)
    require_choice("adjust", adjust, tuple(ADJUSTMENTS))
    for name in (factor, *([by] if by is not None else ())):
        require_text("factor" if name is factor else "by", name)
        if name not in analysed.table.columns:
            raise AnalysisError(f'"{name}" is no factor; {nearest(name, analysed.factors or map(str, analysed.table))}')
    if by == factor:
        raise AnalysisError(f'by: expected a factor other than "{factor}"; got it again')
    levels = None if levels is None else levels_given(factor, levels)
    needs = {factor: levels, **({by: None} if by is not None else {})}
    analysed = analysed.in_design(design, needs)
    table = analysed.table
    within = names_of("within", analysed.factors if within is None else within)
    analysed.require_one_rule([factor, by, *within])
    cells = [name for name in within if name not in (factor, by)]
    require_columns(table, factor, *([by] if by is not None else []), seed)
    pairs = _pairs(table[factor], factor, levels)
    options: dict[str, Any] = {"factor": factor, "response": analysed.value, "seed": seed}

    def effects(rows: pd.DataFrame, others: Sequence[str]) -> list[Contrast]:
        results = [contrast(rows, levels=pair, within=others, **options) for pair in pairs]
        return [replace(result, response=analysed.response) for result in results]

    everything = cells if by is None else [*cells, by]
    contrasts = _adjusted(effects(table, everything), adjust)
    _require_seeds_at_two_levels(table, factor, seed, pairs)
    simple: dict[str, list[Contrast]] = {}
    if by is not None:
        at = level_column(table[by])
        for level in level_order(table[by]):
            try:
                simple[level] = effects(table[at == level], cells)
            except AnalysisError as error:
                raise AnalysisError(f"at {by} = {level}: {error}") from None
        if len(simple) < 2:
            raise AnalysisError(f'by: expected "{by}" to have at least two levels; got {", ".join(simple) or "none"}')
    family = iter(_adjusted([result for results in simple.values() for result in results], adjust))
    every = [*contrasts, *(result for results in simple.values() for result in results)]
    alone = len(every) == 1
    notes = dict.fromkeys(
        note if alone else f"{result.levels[1]} against {result.levels[0]}: {note}"
        for result in every
        for note in result.warnings
    )
    needed = minimum_seeds(len(contrasts) if adjust == "holm" else 1)
    fewest = min(result.n_seeds for result in contrasts)
    if fewest < needed:
        notes[f"{fewest} seeds cannot reach p < .05 by random signs, whatever they say: it takes {needed}"] = None
    levels_compared = (pairs[0][0], *(pair[1] for pair in pairs))
    means = level_means(table, levels=levels_compared, within=everything, **options)
    if len(pairs) > 1:  # of two levels the contrast's own warnings say all of it
        notes |= dict.fromkeys(means.warnings)
    omnibus, lost = _omnibus(contrasts)
    if lost:
        notes[f"{lost} seeds left out of the joint test: they lack a comparison"] = None
    return Comparison(
        factor=factor,
        levels=levels_compared,
        response=analysed.response,
        unit=analysed.unit,
        contrasts=contrasts,
        means=_over_seeds(means.means),
        omnibus=omnibus,
        by=by,
        simple_effects={level: tuple(next(family) for _ in results) for level, results in simple.items()},
        interactions=_interactions(str(by), simple, adjust) if by is not None else pd.DataFrame(),
        design=analysed.design,
        warnings=(*analysed.notes(factor, pairs), *_without_level(analysed, factor), *notes),
    )


def _pairs(column: pd.Series, factor: str, levels: Sequence[Any] | None) -> list[tuple[str, str]]:
    """Each level beside the first, as text."""
    present = level_order(column)
    wanted = present if levels is None else [str(level_text(level)) for level in levels]
    if len(wanted) < 2 or len(set(wanted)) < len(wanted):
        raise AnalysisError(
            f'factor "{factor}": expected at least two different levels; got {len(wanted)} ({", ".join(wanted)}). '
            "Compare a factor that varies in these rows"
        )
    return [(wanted[0], other) for other in wanted[1:]]


def _without_level(analysed: AnalysisRows, factor: str) -> list[str]:
    """Of a table, how many rows have no level; runs of a study that lack a factor are none of its comparison."""
    n = int(level_column(analysed.table[factor]).isna().sum()) if analysed.records is None else 0
    return [f"{n:,} of {len(analysed.table):,} rows left out: no level of {factor}"] if n else []


def _require_seeds_at_two_levels(table: pd.DataFrame, factor: str, seed: str, pairs: Sequence[tuple[str, str]]) -> None:
    """A seed is shared by runs at several levels; an identifier of runs is not."""
    at = level_column(table[factor])
    rows = at.isin([level for pair in pairs for level in pair]).to_numpy()
    if at[rows].groupby(table[seed][rows].to_numpy()).nunique().max() < 2:
        raise AnalysisError(
            f'expected seeds with rows at two levels of {factor} or more; got one level for each "{seed}". Name the '
            "column of the seeds with seed=, or compare levels that ran with the same seeds"
        )


def _adjusted(results: Sequence[Contrast], adjust: str) -> tuple[Contrast, ...]:
    adjusted = ADJUSTMENTS[adjust]([result.p for result in results])
    return tuple(replace(result, p_adjusted=float(p)) for result, p in zip(results, adjusted, strict=True))


def _over_seeds(means: pd.DataFrame) -> pd.DataFrame:
    """Every level's mean over seeds, with its t interval."""
    tests = {level: paired_test(means[level].dropna()) for level in means}
    rows = [(level, test.estimate, *test.interval, test.n_seeds) for level, test in tests.items()]
    return pd.DataFrame(rows, columns=["level", "mean", "low", "high", "n_seeds"])


def _differences(result: Contrast) -> pd.Series:
    return pd.Series(result.differences, index=list(result.seeds), dtype=float)


def _omnibus(contrasts: Sequence[Contrast]) -> tuple[FTest | None, int]:
    """Whether any of several levels differs, over the seeds that have every contrast; and how many lack one."""
    k = len(contrasts)
    if k == 1:
        return None, 0
    every = pd.concat([_differences(result) for result in contrasts], axis="columns")
    table = every.dropna()
    nothing = float("nan")
    if len(table) < 2:
        return FTest(nothing, k, nothing, nothing), len(every) - len(table)
    # Differences from one level share it: with equal variances their covariance is 1 off and 2 on the diagonal.
    return repeated_measures_f(table.to_numpy(), np.ones((k, k)) + np.eye(k))[0], len(every) - len(table)


def _interactions(by: str, simple: Mapping[str, Sequence[Contrast]], adjust: str) -> pd.DataFrame:
    """How each contrast changes from the first level of `by` to each other one, per seed."""
    first, *others = simple
    rows = []
    for other in others:
        for before, after in zip(simple[first], simple[other], strict=True):
            # A seed that lacks one of the two is a missing difference, which the test counts.
            test = paired_test(_differences(after) - _differences(before))
            rows.append(
                {
                    "factor": before.factor, "level_from": before.levels[0], "level_to": before.levels[1],
                    f"{by}_from": first, f"{by}_to": other, "estimate": test.estimate, "low": test.interval[0],
                    "high": test.interval[1], "p": test.p, "p_adjusted": test.p, "df": test.df, "n_seeds": test.n_seeds,
                    "method": f"difference of per-seed contrasts; {test.method}",
                    "warnings": "; ".join(test.warnings),
                }
            )  # fmt: skip
    frame = pd.DataFrame(rows)
    return frame.assign(p_adjusted=ADJUSTMENTS[adjust](frame["p"].to_numpy()))
