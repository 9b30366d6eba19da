"""Verdicts and grades of tuned studies: how often they are false, and how often they are given where they are true.

The contrasts of most simulated studies are found on arrays, the choice of rates inside, and judged by the functions
that judge a study's records. A few studies of each batch go the whole way, from records to grades, and must agree.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import lru_cache
from types import MappingProxyType

import numpy as np

from alignkit.calibration.rates import Section, Tally, tally
from alignkit.calibration.scenarios import Scenario
from alignkit.calibration.tuned import (
    CLAIMS,
    FACTORS,
    LEVELS,
    MODERATOR,
    RATES,
    Tuned,
    contrasts,
    counting_rates,
    level_contrasts,
    mean_over_rates,
    question_contrasts,
    tuned_records,
    tuned_studies,
    tuned_study,
)
from alignkit.claims.moderation import LevelEffect, Moderation
from alignkit.claims.moderators import moderation_p
from alignkit.claims.panel import Answer, Panel, grade
from alignkit.claims.verdict import Verdict
from alignkit.claims.verdicts import evaluate, in_families, panels_of
from alignkit.stats.contrasts.arrays import moments, sign_flip_p_values, t_interval, tost_p
from alignkit.stats.contrasts.best_set import best_set
from alignkit.study.claim import Claim
from alignkit.study.hypotheses import moderator_hypotheses
from alignkit.study.panel import panel_of
from alignkit.study.study import Study

ALPHA = 0.05
MARGIN = 5.0
"""The smallest effect that matters, in standard errors of a tuned contrast: as in the paired studies."""
WHOLE = 2
"""Studies of each batch that go the whole way, from records on."""
PILOT = 3
"""Seeds of a pilot that chooses one rate for all."""
LARGE = 4.0
"""An effect, in sds over seeds of a tuned contrast, that hardly any study misses."""
TRUE_OVER = 20_000
"""Studies over which a true tuned contrast is the mean."""
FAILED = (1, 2, 4)
"""How many of 80 arms fail under a seed."""
WIDE = 3.0
METHOD = "verdicts of tuned studies"
GRADES = "grades"


@dataclass(frozen=True)
class Outcomes:
    """What was said of the claims of simulated studies: verdicts and grades [studies, claims], and whether the first
    claim was said to depend on its moderator [studies]."""

    verdicts: np.ndarray
    grades: np.ndarray
    depends: np.ndarray

    def any_verdict(self, *kinds: str) -> np.ndarray:
        """Whether any claim of a study has a verdict of these."""
        return np.asarray(np.isin(self.verdicts, kinds).any(axis=1))

    def any_grade(self, kind: str) -> np.ndarray:
        """Whether any claim of a study has this grade."""
        return np.asarray((self.grades == kind).any(axis=1))


class Family:
    """The per-seed contrasts of simulated studies, found once: effects are added to them.

    rows [studies, claims, questions, seeds]; levels [studies, levels of the moderator, seeds], of the first claim.
    """

    def __init__(self, of: Tuned, study: Study) -> None:
        self.study = study
        # The claims differ in their factor alone: all have the first one's panel and hypotheses.
        self.questions = panel_of(study.claims[0], study)
        self.hypotheses = moderator_hypotheses(study.claims[0], study)
        self.rows = np.stack([question_contrasts(of, each) for each in self.questions], axis=2)
        self.levels = level_contrasts(declared_values(of))

    def with_margin(self, margin: float) -> Family:
        """The same contrasts in a study whose smallest effect that matters is another."""
        other = copy(self)
        other.study = tuned_study(len(self.study.seed_list), margin)
        return other

    @property
    def core(self) -> tuple[str, ...]:
        """The keys of the core rows after the declared one."""
        return tuple(each.key for each in self.questions[1:] if each.core)

    def with_effects(
        self,
        everywhere: float = 0.0,
        *,
        at: Mapping[str, float] | Sequence[Mapping[str, float]] = MappingProxyType({}),
        levels: tuple[float, float] | None = None,
        grades: bool = True,
    ) -> Outcomes:
        """What is said where every claim has an effect `everywhere`, and others `at` single rows of its panel.

        at : for all claims, or one for each. `levels` are the first claim's effects at the levels of its moderator;
        everywhere it then has their mean.
        """
        effects = np.full(self.rows.shape[1:3], everywhere)
        keys = [each.key for each in self.questions]
        for claim in range(len(CLAIMS)):
            for key, effect in (at if isinstance(at, Mapping) else at[claim]).items():
                effects[claim, keys.index(key)] = effect
        at_levels = np.full(2, everywhere)
        if levels is not None:
            effects[0], at_levels = np.mean(levels), np.array(levels)
        return self.judged(self.rows + effects[..., None], self.levels + at_levels[:, None], grades=grades)

    def judged(self, rows: np.ndarray, levels: np.ndarray, *, grades: bool = True) -> Outcomes:
        """What is said of contrasts in the shapes of `rows` and `levels`; grades are "" unless they are asked for."""
        if not grades:
            rows = rows[:, :, :1]
        margin = self.study.claims[0].smallest_effect
        of_rows, of_levels = _Tests.of(rows, margin), _Tests.of(levels, margin)
        verdicts, graded, depends = [], [], []
        for number in range(len(rows)):
            measured = [
                self._measured(claim, rows[number, k, 0], of_rows.at(number, k, 0), levels[number], of_levels, number)
                for k, claim in enumerate(self.study.claims)
            ]
            found = in_families(measured, untested=0, alpha=ALPHA)
            panels = [Panel(claim, ()) for claim in self.study.claims]
            if grades:
                panels = [
                    Panel(claim, tuple(self._answers(rows[number, k], of_rows, number, k)))
                    for k, claim in enumerate(self.study.claims)
                ]
                panels = grade(panels, found, alpha=ALPHA)
            verdicts.append([one.verdict for one in found])
            graded.append([one.grade for one in panels])
            depends.append(bool(found[0].depends))
        return Outcomes(np.array(verdicts), np.array(graded), np.array(depends))

    def _measured(
        self, claim: Claim, differences: np.ndarray, found: _Test, levels: np.ndarray, of_levels: _Tests, number: int
    ) -> Verdict:
        n, names = len(differences), (str(claim.levels[0]), str(claim.levels[1]))
        effects = []
        if claim.moderators:
            for k, level in enumerate(FACTORS[f"network.{MODERATOR}"]):
                test = of_levels.at(number, k)
                effects.append(
                    LevelEffect(
                        MODERATOR, str(level), test.estimate, test.interval, test.p, test.p_equivalence, n,
                        tuple(range(n)), tuple(levels[k]),
                    )
                )  # fmt: skip
        return Verdict(
            claim, "undecided", "", names, "°", "practices", estimate=found.estimate, interval=found.interval,
            p=found.p, p_equivalence=found.p_equivalence, n_seeds=n, seeds=tuple(range(n)),
            differences=tuple(differences), level_effects=tuple(effects),
            moderations=tuple(Moderation(each, moderation_p(each, effects)) for each in self.hypotheses if effects),
        )  # fmt: skip

    def _answers(self, rows: np.ndarray, tests: _Tests, number: int, claim: int) -> Iterator[Answer]:
        n = rows.shape[-1]
        for row, question in enumerate(self.questions):
            test = tests.at(number, claim, row)
            yield Answer(
                question, test.estimate, test.interval, test.p, test.p_equivalence, n, len(LEVELS) // 2,
                tuple(range(n)), tuple(rows[row]),
            )  # fmt: skip


@dataclass(frozen=True)
class _Test:
    estimate: float
    interval: tuple[float, float]
    p: float
    p_equivalence: float


@dataclass(frozen=True)
class _Tests:
    """The tests of differences [..., seeds]."""

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    p: np.ndarray
    p_equivalence: np.ndarray

    @classmethod
    def of(cls, differences: np.ndarray, margin: float) -> _Tests:
        found = moments(differences)
        return cls(found.mean, *t_interval(found), sign_flip_p_values(differences), tost_p(found, margin=margin))

    def at(self, *place: int) -> _Test:
        interval = float(self.low[place]), float(self.high[place])
        return _Test(float(self.mean[place]), interval, float(self.p[place]), float(self.p_equivalence[place]))


def declared_values(of: Tuned) -> np.ndarray:
    """What the claims are about, each seed tuning itself [studies, seeds, cells]."""
    return mean_over_rates(of.angle[0], counting_rates(of, "within"))


def evaluate_grades(scenario: Scenario, studies: int, generator: np.random.Generator) -> list[Tally]:
    """Verdicts, grades and moderators over simulated families of three claims, each with a panel."""
    of, sd = tuned_studies(scenario, studies, generator), contrast_sd(scenario)
    study = tuned_study(scenario.n_seeds, MARGIN * sd / np.sqrt(scenario.n_seeds))
    family = Family(of, study)
    return [*_errors(family, sd), *_power(family, sd), *_whole_path(of, study, sd)]


def _at_most(method: str, quantity: str, happened: np.ndarray) -> Tally:
    return tally("tuned", method, quantity, happened, target=ALPHA, side="at most")


def _errors(family: Family, sd: float) -> list[Tally]:
    """False verdicts, grades and words on moderators; claimed effects are decreases."""
    margin, large = family.study.claims[0].smallest_effect, LARGE * sd
    none, at_margin = family.with_effects(grades=False), family.with_effects(-margin, grades=False)
    half = family.with_effects(-margin / 2, grades=False)
    # Effects of half a wide margin are supported and equivalent at either level, and differ nowhere.
    wide = family.with_margin(WIDE * margin).with_effects(-WIDE * margin / 2, grades=False)
    # Of each claim another core row has no effect, or one at the margin: first in other places, then in the rest.
    parts = {"place": family.core[: len(CLAIMS)], "way": family.core[-len(CLAIMS) :]}
    null_in = {part: family.with_effects(-large, at=[{key: 0.0} for key in keys]) for part, keys in parts.items()}
    margin_in = {part: family.with_effects(at=[{key: -margin} for key in keys]) for part, keys in parts.items()}
    # The hardest case for "contested": wherever the claim was not declared, its effect is just not the opposite.
    others = [each.key for each in family.questions if each.key != "declared"]
    nothing_elsewhere = family.with_effects(at={"declared": -large})
    margin_elsewhere = family.with_effects(at=dict.fromkeys(others, -margin))
    return [
        _at_most(METHOD, "any supported or refuted, no effects", none.any_verdict("supported", "refuted")),
        _at_most(
            METHOD, "any equivalent or refuted, all at the margin", at_margin.any_verdict("equivalent", "refuted")
        ),
        *(
            _at_most(GRADES, f"any robust, each claim {what} in another {part}", said.any_grade("robust"))
            for what, by_part in (("null", null_in), ("at the margin", margin_in))
            for part, said in by_part.items()
        ),
        _at_most(GRADES, "any contested, null in all other rows", nothing_elsewhere.any_grade("contested")),
        _at_most(GRADES, "any contested, at the margin in all other rows", margin_elsewhere.any_grade("contested")),
        _at_most("moderators", "depends, no effects", none.depends),
        _at_most("moderators", "depends, additive, half the margin", half.depends),
        _at_most("moderators", "depends, additive, at the margin", at_margin.depends),
        _at_most("moderators", f"depends, additive, half of a margin {WIDE:g} times as wide", wide.depends),
    ]


def _power(family: Family, sd: float) -> list[Tally]:
    """Where grades are true: how many claims have them."""
    found = [_reported("robust, no effects anywhere", family.with_effects().grades == "robust")]
    for size in (2, 3, 4):
        true = family.with_effects(-size * sd).grades == "robust"
        found.append(_reported(f"robust, {size} sd everywhere", true))
    for size in (1, 2, 3):
        opposed = family.with_effects(-LARGE * sd, at={family.core[1]: size * sd}).grades == "contested"
        found.append(_reported(f"contested, one row opposes by {size} sd", opposed))
    for size in (1, 2, 3):
        turned = family.with_effects(levels=(-size * sd, size * sd), grades=False).depends
        found.append(_reported(f"depends, turns over, {size} sd at either level", turned))
    return found


def _reported(quantity: str, happened: np.ndarray, section: Section = "power of grades") -> Tally:
    return tally(section, GRADES, quantity, happened)


def _whole_path(of: Tuned, study: Study, sd: float) -> list[Tally]:
    """A few studies from records on: the same numbers, and how often anything false is said.

    The first claim has a large effect, the second none and the third one at the margin, the same everywhere.
    """
    effects = np.array([-LARGE * sd, 0.0, -study.claims[0].smallest_effect])
    shifted = of.shifted(effects)
    family = Family(shifted.of(slice(WHOLE)), study)
    expected = family.judged(family.rows, family.levels)
    same, wrong = [], []
    for number in range(len(family.rows)):
        records = tuned_records(shifted, number, study)
        verdicts, panels = evaluate(records, alpha=ALPHA), panels_of(records, alpha=ALPHA)
        said = [one.verdict for one in verdicts], [one.grade for one in panels], bool(verdicts[0].depends)
        own = list(expected.verdicts[number]), list(expected.grades[number]), bool(expected.depends[number])
        rows = np.array([[each.differences for each in panel.answers] for panel in panels])
        close = rows.shape == family.rows[number].shape and np.allclose(rows, family.rows[number], rtol=1e-9, atol=1e-9)
        same.append(close and said == own)
        false = (("equivalent", "refuted"), ("supported", "refuted"), ("equivalent", "refuted"))
        bad = [verdict in kinds for verdict, kinds in zip(said[0], false, strict=True)]
        wrong.append(any(bad) or "contested" in said[1] or said[2])
    return [
        tally("tuned", "records to grades", "same numbers", np.array(same), target=1.0, side="equal"),
        _at_most("records to grades", "anything false", np.array(wrong)),
    ]


def evaluate_tuned(scenario: Scenario, studies: int, generator: np.random.Generator) -> list[Tally]:
    """Tuned contrasts whose arms have their best rates apart, the set of the best cells, arms that fail, and effects
    that are lognormal."""
    return [
        *_coverage(scenario, studies, generator),
        *_best_cells(scenario, studies, generator),
        *_failures(scenario, studies, generator),
        *_lognormal(scenario, studies, generator),
    ]


def _coverage(scenario: Scenario, studies: int, generator: np.random.Generator) -> list[Tally]:
    """Intervals of the first claim, whose arms have their best rates one apart; a pilot's choice is shared."""
    truths = true_contrasts(scenario)
    found = []
    for how, differences in _contrasts_by(scenario, studies, generator).items():
        low, high = t_interval(moments(differences))
        covered = (low <= truths[how]) & (truths[how] <= high)
        section: Section = "tuned" if how == "each seed its own rates" else "comparison"
        found.append(tally(section, f"tuned contrast, {how}", "coverage", covered, target=1 - ALPHA, side="equal"))
    return found


def _contrasts_by(scenario: Scenario, studies: int, generator: np.random.Generator) -> dict[str, np.ndarray]:
    """The first claim's contrasts [studies, seeds] by who chooses the rates."""
    of = tuned_studies(scenario, studies, generator, turn=1.0)
    pilot = tuned_studies(replace(scenario, n_seeds=PILOT), studies, generator, turn=1.0)
    best = pilot.accuracy.mean(axis=1, keepdims=True).argmax(axis=-1)[..., None]
    by = {
        "each seed its own rates": counting_rates(of, "within"),
        "one rate for all, by the same seeds": counting_rates(of, "common"),
        f"one rate for all, by a pilot of {PILOT} seeds": np.broadcast_to(
            np.arange(len(RATES)) == best, of.alive.shape
        ),
    }
    return {how: contrasts(mean_over_rates(of.angle[0], counts))[:, 0] for how, counts in by.items()}


@lru_cache(maxsize=8)
def true_contrasts(scenario: Scenario) -> dict[str, float]:
    """What each choice of rates finds on average, over very many studies."""
    generator = np.random.default_rng(20)
    parts = [_contrasts_by(scenario, 500, generator) for _ in range(TRUE_OVER // 500)]
    return {how: float(np.mean([part[how].mean() for part in parts])) for how in parts[0]}


@lru_cache(maxsize=8)
def contrast_sd(scenario: Scenario) -> float:
    """Sd over seeds of a tuned contrast, over very many studies."""
    generator = np.random.default_rng(10)
    parts = [contrasts(declared_values(tuned_studies(scenario, 500, generator))) for _ in range(4)]
    return float(np.sqrt(np.mean([part.var(axis=-1, ddof=1).mean() for part in parts])))


def _best_cells(scenario: Scenario, studies: int, generator: np.random.Generator) -> list[Tally]:
    """Whether a cell that is the best is left out of the set, and how many of the worse ones are."""
    of, sd = tuned_studies(scenario, studies, generator), contrast_sd(scenario)
    tallies = []
    for size in (0, 1, 2, 3):
        values = declared_values(of.shifted(np.array([-size * sd, 0.0, 0.0])))
        members = np.array([best_set(each, better="lower").members for each in values])
        best = LEVELS[:, 0] == 1
        what = f"half of the cells better by {size} sd" if size else "all cells alike"
        tallies.append(_at_most("best cells", f"a best cell is left out, {what}", ~members[:, -1]))
        if size:
            left_out = ~members[:, ~best]
            tallies.append(tally("power of grades", "best cells", f"a worse cell is left out, {what}", left_out))
    return tallies


def _failures(scenario: Scenario, studies: int, generator: np.random.Generator) -> list[Tally]:
    """Arms that diverge under a seed at every rate, or at one rate alone, drawn at random."""
    of, sd = tuned_studies(scenario, studies, generator), contrast_sd(scenario)
    study = tuned_study(scenario.n_seeds, MARGIN * sd / np.sqrt(scenario.n_seeds))
    of = of.shifted(np.array([-7 * sd, 0.0, 0.0]))
    arms = scenario.n_seeds * len(LEVELS)
    order = generator.permuted(np.broadcast_to(np.arange(arms), (studies, arms)), axis=1).reshape(of.lean.shape)
    found = []
    for failed in (0, *FAILED):
        for alone in (False, True) if failed else (False,):
            at = np.arange(len(RATES)) == len(RATES) // 2 if alone else np.ones(len(RATES), dtype=bool)
            dead = (order < failed * arms // 80)[..., None] & at
            broken = replace(of, alive=~dead)
            family = Family(broken, study)
            said = family.judged(family.rows, family.levels, grades=False).verdicts
            where = f"{failed} of 80 failed" + (" at one rate" if alone else "") if failed else "none failed"
            for what, kind, claims in (("7 sd", "supported", said[:, :1]), ("no effect", "equivalent", said[:, 1:])):
                happened = claims == kind
                found.append(tally("power of grades", "failed runs", f"{what}: {kind}, {where}", happened))
    return found


def _lognormal(scenario: Scenario, studies: int, generator: np.random.Generator) -> list[Tally]:
    """Effects of seeds that are lognormal and of twice the residual sd: what skewness does, as it is seen."""
    skew = replace(scenario, effect_sd=2.0)
    of, sd = tuned_studies(skew, studies, generator, lognormal=True), contrast_sd(skew)
    margin = MARGIN * sd / np.sqrt(scenario.n_seeds)
    family = Family(of, tuned_study(scenario.n_seeds, margin))
    tallies = []
    for what, effect, false in (
        ("any supported or refuted, no effects", 0.0, ("supported", "refuted")),
        ("any equivalent or refuted, all at the margin", -margin, ("equivalent", "refuted")),
        ("any equivalent or refuted, all at the margin, tail inwards", margin, ("equivalent", "supported")),
    ):
        wrong = family.with_effects(effect, grades=False).any_verdict(*false)
        tallies.append(tally("power of grades", "lognormal effects", what, wrong))
    return tallies
