"""Whether runs fail because of a factor: failures as an outcome of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from scipy import stats

from alignkit.display import shown
from alignkit.errors import AnalysisError, nearest
from alignkit.stats.contrasts.paired import minimum_seeds, paired_test
from alignkit.stats.contrasts.per_seed import seed_contrasts
from alignkit.stats.tables.frames import one_row
from alignkit.stats.tables.inference import inference_of
from alignkit.stats.tables.levels import level_column


@shown()
@dataclass(frozen=True)
class FailureContrast:
    """How much more often runs fail at `levels[1]` than at `levels[0]`.

    `estimate`, `interval` and `p` are those of the per-seed differences of failure rates (shares, not
    percent). `rates` and `runs` are each level's failure rate and number of runs. `pairs` counts matched
    runs by what failed: neither, the first level alone, the second alone, both; `p_mcnemar` is the exact
    McNemar p on them, NaN where nothing is matched.
    """

    factor: str
    levels: tuple[str, str]
    estimate: float
    interval: tuple[float, float]
    p: float
    p_mcnemar: float
    rates: tuple[float, float]
    runs: tuple[int, int]
    pairs: dict[str, int]
    differences: tuple[float, ...]
    df: int
    n_seeds: int
    method: str
    warnings: tuple[str, ...] = ()

    def to_frame(self) -> pd.DataFrame:
        """One row."""
        pairs = {f"pairs_{key.replace(' ', '_')}": count for key, count in self.pairs.items()}
        return one_row(
            self, "factor", "levels", "rate_from", "rate_to", "estimate", "interval", "p", "p_mcnemar", *pairs, "df",
            "n_seeds", "method", "warnings", rate_from=self.rates[0], rate_to=self.rates[1], **pairs,
        )  # fmt: skip


def failure_contrast(
    table: pd.DataFrame,
    *,
    factor: str,
    levels: tuple[Any, Any],
    within: Sequence[str] = (),
    failed: str = "diverged",
    seed: str = "seed",
) -> FailureContrast:
    """Whether runs fail more often at one level of a factor than at another.

    `table` is as for `seed_contrasts`; `failed` names a column of true and false. The inference is on one
    difference of failure rates per seed, by the exact sign-flip test. McNemar's test on matched runs is
    given beside it to describe: it counts the pairs of one seed as independent, which they are not, and
    rejects too often where some seeds are more fragile than others.

    Do not take a large p for "failures do not matter": one diverged run in forty can move a mean. See
    `worst_case_bounds`.
    """
    if failed not in table.columns:
        raise AnalysisError(f'expected a column "{failed}"; {nearest(failed, map(str, table.columns))}')
    flags = pd.to_numeric(level_column(table[failed]).replace({"true": 1.0, "false": 0.0}), errors="coerce")
    rows = table.assign(_failed=flags.where(flags.isin([0.0, 1.0])).astype(float))
    contrasts = seed_contrasts(rows, factor=factor, levels=levels, response="_failed", seed=seed, within=within)
    names = [name for name in within if name != factor]
    rows = rows.assign(**{name: level_column(rows[name]).map(str) for name in names}, _at=level_column(rows[factor]))
    rows = rows[rows["_at"].isin(contrasts.levels)]
    unclear = int(rows["_failed"].isna().sum())
    if unclear:
        raise AnalysisError(
            f'expected true or false in "{failed}"; got {unclear} other values. Say of every run whether it failed'
        )
    test = paired_test(contrasts.differences)
    before, after = (rows.loc[rows["_at"] == level, "_failed"] for level in contrasts.levels)
    pairs = _pairs(rows.pivot(index=[seed, *names], columns="_at", values="_failed")[list(contrasts.levels)])
    warnings = list(contrasts.warnings)
    if not rows["_failed"].any():
        # With no failing seed among n, a chance of q per seed has probability (1 - q)^n.
        warnings.append(
            f"no run failed: the chance that a seed has any failure is below {1 - 0.05 ** (1 / test.n_seeds):.0%} (95%)"
        )
    else:
        warnings += test.warnings
    if test.n_seeds < minimum_seeds():
        warnings.append(f"{test.n_seeds} seeds cannot reach p < .05, whatever fails")
    return FailureContrast(
        factor=factor,
        levels=contrasts.levels,
        **inference_of(test),
        p_mcnemar=_mcnemar_p(pairs),
        rates=(float(before.mean()), float(after.mean())),
        runs=(len(before), len(after)),
        pairs=pairs,
        differences=tuple(float(value) for value in contrasts.differences),
        method=f"failure rates, {contrasts.method}; {test.method}; exact McNemar to describe",
        warnings=tuple(warnings),
    )


def _mcnemar_p(pairs: dict[str, int]) -> float:
    """The exact p of McNemar's test; NaN where nothing is matched."""
    discordant = pairs["first alone"] + pairs["second alone"]
    if not sum(pairs.values()):
        return float("nan")
    return float(stats.binomtest(pairs["first alone"], discordant).pvalue) if discordant else 1.0


def _pairs(cells: pd.DataFrame) -> dict[str, int]:
    """How many matched runs failed, by which of the two did; `cells` has a row per seed and cell."""
    before, after = cells.dropna().to_numpy(dtype=bool).T
    return {
        "neither": int((~before & ~after).sum()),
        "first alone": int((before & ~after).sum()),
        "second alone": int((~before & after).sum()),
        "both": int((before & after).sum()),
    }
