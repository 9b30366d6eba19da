"""What differences within seeds say of their mean: the confirmatory test of alignkit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from alignkit.display import shown
from alignkit.errors import AnalysisError
from alignkit.stats.contrasts.arrays import DRAWS, EXACT_UP_TO, moments, sign_flip_p_values, t_interval, t_p
from alignkit.stats.tables.checks import differences_of, require_alpha, require_count, require_level
from alignkit.stats.tables.frames import one_row
from alignkit.text import count


@shown()
@dataclass(frozen=True)
class PairedResult:
    """What differences within seeds say of their mean: t interval, exact sign-flip p, and the t test's p."""

    estimate: float
    interval: tuple[float, float]
    p: float
    p_t: float
    df: int
    n_seeds: int
    sd: float
    level: float
    method: str
    warnings: tuple[str, ...] = ()

    def to_frame(self) -> pd.DataFrame:
        """One row."""
        return one_row(self, "estimate", "interval", "p", "p_t", "df", "n_seeds", "method", "warnings")


def paired_test(
    differences: Sequence[float] | np.ndarray | pd.Series,
    *,
    level: float = 0.95,
    alpha: float | None = None,
    family_size: int = 1,
    seed: int = 0,
) -> PairedResult:
    """Whether differences taken within seeds have mean zero: t interval and exact sign-flip p.

    The p comes from all 2^n sign patterns up to 16 seeds, beyond that from 99,999 patterns drawn with
    a generator seeded by `seed`, as (b + 1)/(K + 1). It supposes that under the null a difference is
    as likely to have either sign; the interval supposes normal differences.

    With `alpha` the test is confirmatory, in a Holm family of `family_size`: it is refused
    (`AnalysisError`) where no data could reach `alpha` with so few seeds.

    Do not feed it checkpoints, layers or samples: they are not independent. One number per seed.

    >>> result = paired_test([1.0, 2.0, 1.5, 0.5, 1.0, 2.0])
    >>> result.estimate, result.p, result.df
    (1.3333333333333333, 0.03125, 5)
    """
    require_level(level)
    require_count("seed", seed, least=0)
    values = differences_of(differences)
    warnings = []
    missing = np.isnan(values)
    if missing.any():
        warnings.append(f"{count(int(missing.sum()), 'missing difference')} left out")
        values = values[~missing]
    n = len(values)
    if alpha is not None:
        require_seeds(n, family_size=family_size, alpha=alpha)
    patterns = f"exact sign-flip p, {2**n:,} patterns" if n <= EXACT_UP_TO else f"sign-flip p, {DRAWS:,} draws"
    method = f"t interval; {patterns}"
    nothing = float("nan")
    if n == 0:
        warnings.append("no seed has a difference: nothing can be estimated")
        return PairedResult(
            nothing, (nothing, nothing), nothing, nothing, 0, 0, nothing, level, method, tuple(warnings)
        )
    of = moments(values)
    low, high = t_interval(of, level=level)
    if n == 1:
        warnings.append("one seed: no interval, and no test can reject")
    elif of.sd == 0:
        warnings.append("all seeds have the same difference: no variance to build an interval on")
    return PairedResult(
        float(of.mean), (float(low), float(high)), sign_flip_p(values, seed=seed), float(t_p(of)), n - 1, n,
        float(of.sd), level, method, tuple(warnings),
    )  # fmt: skip


def sign_flip_p(differences: Sequence[float] | np.ndarray, *, seed: int = 0, draws: int = DRAWS) -> float:
    """The two-sided p of a mean under random signs: exact up to 16 differences, drawn beyond.

    >>> sign_flip_p([1.0, 2.0, 3.0])
    0.25
    """
    require_count("seed", seed, least=0)
    require_count("draws", draws)
    values = differences_of(differences)
    missing = int(np.isnan(values).sum())
    if missing:
        raise AnalysisError(
            f"expected finite differences; got {missing} missing of {len(values)}. "
            "Use paired_test, which leaves them out and counts them"
        )
    return float(sign_flip_p_values(values, seed=seed, draws=draws))


def minimum_seeds(family_size: int = 1, alpha: float = 0.05) -> int:
    """The fewest seeds with which an exact paired test can reach `alpha` in a Holm family.

    >>> minimum_seeds(), minimum_seeds(10)
    (6, 9)
    """
    require_count("family_size", family_size)
    require_alpha(alpha)
    n = 1
    while 2 / 2**n * family_size > alpha:
        n += 1
    return n


def require_seeds(n_seeds: int, *, family_size: int = 1, alpha: float = 0.05) -> None:
    """Raise `AnalysisError` where `n_seeds` differences cannot reach `alpha`, whatever they are."""
    require_count("n_seeds", n_seeds, least=0)
    needed = minimum_seeds(family_size, alpha)
    if n_seeds >= needed:
        return
    family = f" in a Holm family of {family_size}" if family_size > 1 else ""
    mend = ", declare fewer claims" if n_seeds >= minimum_seeds(1, alpha) else ""
    raise AnalysisError(
        f"an exact paired test{family} needs ≥ {needed} seeds to reach p < {str(alpha).removeprefix('0')}; "
        f"got {n_seeds}. Add seeds{mend}, or report the estimate alone"
    )
