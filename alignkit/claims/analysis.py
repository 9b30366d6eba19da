"""All that a report says, worked out before a word of it is written.

An `Analysis` is the one place that asks records. Figures and sections of the report are made of its tables.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pandas as pd

from alignkit.claims.cells import ClaimCells, claim_cells
from alignkit.claims.configurations import Configurations, configurations
from alignkit.claims.effects import DesignEffects, crossed_streams, design_effects, varying_factors
from alignkit.claims.fit import Method, fit
from alignkit.claims.over_rates import over_rates
from alignkit.claims.panel import Panel
from alignkit.claims.recommendations import recommendations
from alignkit.claims.stakes import Stake, stake, unlike
from alignkit.claims.tables import claim_factors, claim_table
from alignkit.claims.verdict import Verdict
from alignkit.claims.verdicts import evaluate, family_size, panels_of, without_each_seed
from alignkit.errors import AnalysisError
from alignkit.records.registration import Registration
from alignkit.records.rows import at_the_end, curves, final_by_layer, layers_of, rows_of, summarised, until
from alignkit.records.store import Records
from alignkit.records.summaries import at_layer, measures_of, own_signal, run_summaries
from alignkit.records.tuning import at_best, trajectories
from alignkit.records.vital_signs import NOT_SOLID, vital_signs
from alignkit.stats.contrasts.contrasts import Contrast
from alignkit.stats.contrasts.paired import PairedResult, paired_test
from alignkit.stats.models.linear import LinearFit
from alignkit.stats.tables.levels import in_design, level_order, numeric_levels
from alignkit.study.claim import Claim, Layer
from alignkit.study.study import Study
from alignkit.text import slug

RESPONSES = (
    "gradient_angle_deg", "signal_angle_deg", "delta_angle_deg", "step_angle_deg", "centred_angle_deg", "signal_cosine",
    "delta_cosine", "gradient_cosine", "weight_cosine", "jacobian_cosine", "step_cosine",
)  # fmt: skip
"""What a report calls alignment: what most claims are about, else the first of these that was recorded."""
IMPOSED = frozenset({"imposed_angle"})
"""Rules whose alignment is set, not found."""


@dataclass(frozen=True)
class Analysis:
    """A study's records, judged, and the tables that its report is made of, each worked out once.

    `alignment` is the measure that stands for alignment (None where none was recorded); `rules` are the
    rules that have it, the taught ones if there are any; `design` is the one with most runs. `effects` are the
    contrasts of every factor, and `notes` say which of them cannot be had.
    """

    records: Records
    verdicts: list[Verdict]
    recommendations: list[dict[str, Any]]
    alignment: str | None
    rules: tuple[str, ...]
    design: str
    designs: tuple[str, ...]
    width_design: str | None
    effects: tuple[DesignEffects, ...]
    notes: tuple[str, ...]
    _known: dict[Any, pd.DataFrame] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def study(self) -> Study:
        return self.records.study

    @property
    def factors(self) -> tuple[str, ...]:
        return self.records.factors

    @property
    def shown(self) -> Records:
        """The runs whose course is shown: all, or of each replicate that tunes itself the one with a trajectory."""
        return trajectories(self.records)

    @property
    def runs(self) -> pd.DataFrame:
        """One row per run that is shown: see `columns.py`."""
        return self.shown.runs

    @property
    def every_run(self) -> pd.DataFrame:
        """One row per run, at every learning rate."""
        return self.records.runs

    @property
    def checkpoints(self) -> pd.DataFrame:
        """One row per shown run and checkpoint."""
        return self.shown.checkpoints

    @property
    def layers(self) -> pd.DataFrame:
        """One row per shown run, checkpoint and hidden layer, in the first mode of measurement."""
        return layers_of(self.shown)

    @property
    def other_modes(self) -> list[str]:
        """The modes of measurement beside the first, which only what names them is about."""
        if self.layers is self.shown.layers:
            return []
        return sorted(set(self.shown.layers["mode"].dropna()) - set(self.layers["mode"].dropna()))

    @property
    def timing(self) -> pd.DataFrame | None:
        """How long each cohort took, where and with which torch; None where that was not read."""
        return self.records.timing

    @property
    def missing(self) -> int:
        """How many planned runs have no records yet."""
        return self.records.missing

    @property
    def registration(self) -> Registration | None:
        """The history of the analysis plan."""
        return self.records.registration

    @property
    def measures(self) -> list[str]:
        """The measures of layers, those among them that alignkit does not know."""
        return measures_of(self.layers)

    @property
    def response(self) -> str:
        """`alignment`; `AnalysisError` where none was recorded."""
        if self.alignment is None:
            raise AnalysisError("expected an alignment measure; none was recorded")
        return self.alignment

    @property
    def n_seeds(self) -> int:
        return int(self.runs["seed"].nunique())

    def n_cells(self, design: str, rule: str) -> int:
        return int(self.runs_of(rule=rule, design=design)["cell"].nunique())

    def recorded(self, measure: str) -> bool:
        """Whether any layer has a value of the measure."""
        return measure in self.layers and bool(self.layers[measure].notna().any())

    def varying(self, rule: str, design: str) -> list[str]:
        """The factors that vary in a design under a rule; seeds of single streams do not count."""
        return varying_factors(self.records, rule=rule, design=design)

    def streams(self, rule: str, design: str) -> list[str]:
        """The streams of randomness that a design varies."""
        return crossed_streams(self.records, rule=rule, design=design)

    def suffix(self, rule: str) -> str:
        """What the names of a rule's figures and tables end in: nothing for the first rule."""
        return "" if rule == self.rules[0] else f"_{slug(rule)}"

    def runs_of(self, *, rule: str | None = None, design: str | None = None) -> pd.DataFrame:
        """The runs of one rule in one design; of all where none is named."""
        return rows_of(self.runs, rule=rule, design=design)

    def final(
        self,
        response: str,
        *,
        rule: str | None = None,
        design: str | None = None,
        summary: Literal["final", "auc"] = "final",
        layer: Layer = "mean",
        mode: str | None = None,
        checkpoint: str = "end",
    ) -> pd.DataFrame:
        """One row per run, with its `value` and why it is `missing`: see `run_summaries`.

        A `checkpoint` ("half-way", "first epoch") leaves out whatever was measured after it.
        """
        if checkpoint == "end":
            table = summarised(self.records, response, summary=summary, layer=layer, mode=mode)
        else:
            table = self._once(
                (response, summary, layer, mode, checkpoint),
                lambda: run_summaries(
                    self.runs, until(layers_of(self.records, mode), checkpoint), response, summary=summary, layer=layer
                ),
            )
        return rows_of(table, rule=rule, design=design)

    def mean(self, rule: str, response: str) -> PairedResult | None:
        """The mean over seeds at the end of training, each seed averaged over the main design's cells."""
        try:
            table = self.final(response, rule=rule, design=self.design)
        except AnalysisError:
            return None
        means = table.dropna(subset=["value"]).groupby("seed")["value"].mean()
        # Its p would test a mean of zero, which is no question here: only estimate and interval are used.
        return paired_test(means) if len(means) else None

    def curves(self, response: str, *, rules: Sequence[str], design: str | None) -> pd.DataFrame:
        """A measure over training by rule, layer and step: the mean over seeds with its 95% interval."""

        def of(rule: str) -> pd.DataFrame:
            key = ("curves", response, rule, design)
            return self._once(key, lambda: curves(self.shown, rule=rule, design=design, response=response))

        return _by_rule(rules, of)

    def by_layer(self, response: str, *, rules: Sequence[str], design: str | None, factor: str) -> pd.DataFrame:
        """A measure of each layer at the end of training, by rule and seed, and the factor as a number `x`."""
        options: dict[str, Any] = {"design": design, "factor": factor, "response": response}
        return _by_rule(rules, lambda rule: final_by_layer(at_best(self.records), rule=rule, **options))

    def at_the_end(self, measures: Sequence[str], *, design: str) -> pd.DataFrame:
        """Measures of each layer at the end of training, with the rule and the seed of its run."""
        runs = self.runs_of(design=design)[["run_id", "rule", "seed"]]
        return at_the_end(self.layers, runs, ["signal", *measures])

    def own_layers(self, layer: Layer = "mean", mode: str | None = None) -> pd.DataFrame:
        """`layers` with one signal for each run: the one that taught it, where there was one. All hidden layers, or
        one; in the first mode of measurement, or another."""
        key = ("own", layer, mode)
        return self._once(key, lambda: at_layer(own_signal(layers_of(self.records, mode)), layer))

    def effects_of(self, rule: str, design: str) -> DesignEffects | None:
        return next((one for one in self.effects if (one.rule, one.design) == (rule, design)), None)

    def effects_on(self, response: str, *, rule: str, design: str) -> tuple[Contrast, ...]:
        effects = self.effects_of(rule, design)
        return effects.by_response.get(response, ()) if effects else ()

    def design_with_effects(self, rule: str) -> str:
        """The main design, or the first that varies a factor under this rule."""
        return next((name for name in (self.design, *self.designs) if self.effects_of(rule, name)), self.design)

    def claim_rows(self, claim: Claim, *, response: str | None = None) -> pd.DataFrame:
        """One row per run under a claim's rule and in its design, with its response's value or another's."""
        return claim_table(self.records, claim, response=response)

    def claim_factors(self, claim: Claim) -> tuple[str, ...]:
        """The factors that make a cell of a claim's design."""
        return claim_factors(self.records, claim)

    def vital_signs(self) -> pd.DataFrame:
        """What every cosine stands on, of each seed at its best rate: see `records.vital_signs`."""
        return self._once("vital signs", lambda: vital_signs(at_best(self.records)))

    @property
    def not_solid(self) -> str:
        """What makes a vital sign a bad one, in words."""
        return NOT_SOLID

    def over_rates(self, claim: Claim, *, response: str | None = None) -> pd.DataFrame:
        """A claim's two arms at every learning rate: see `over_rates`."""
        return self._once(
            ("over rates", claim.name, response), lambda: over_rates(self.records, claim, response=response)
        )

    @property
    def panels(self) -> list[Panel]:
        """Each claim's panel with its grade, in the order of `verdicts`."""
        return panels_of(self.records)

    @property
    def family_size(self) -> int:
        """How many claims the confirmatory family counts, untested ones among them."""
        return family_size(self.records)

    def without_each_seed(self) -> dict[Any, list[Verdict | None]]:
        """What the verdicts would be had a seed not run, for each of the study's."""
        return without_each_seed(self.records)

    def configurations(self) -> list[Configurations]:
        """For each design and rule, the cells that may be the best: see `configurations`."""
        return configurations(self.records)

    def claim_cells(self, claim: Claim) -> ClaimCells:
        """How far a claim's effect differs between cells."""
        return claim_cells(self.records, claim)

    def stake(self, claim: Claim) -> Stake:
        """What a claim's effect on an angle is worth in accuracy; `AnalysisError` says why nothing can be told."""
        return stake(self.records, claim)

    def unlike_the_curve(self) -> str:
        """Why the dose-response curve that ships is not of a network like this study's; empty where it is."""
        return unlike(self.records)

    def fit(
        self, formula: str, *, response: str, rule: str, design: str | None, method: Method, layers: bool = False
    ) -> LinearFit:
        """A model of a response on factors: see `fit`."""
        return fit(self.records, formula, response=response, rule=rule, design=design, layers=layers, method=method)

    def _once(self, key: Any, make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
        if key not in self._known:
            self._known[key] = make()
        return self._known[key].copy(deep=False)


def _by_rule(rules: Sequence[str], make: Callable[[str], pd.DataFrame]) -> pd.DataFrame:
    parts = [make(rule).assign(rule=rule) for rule in rules]
    return pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)


def analyse(records: Records) -> Analysis:
    """Verdicts, recommendations and every factor's effects; whatever cannot be had is left out."""
    verdicts = evaluate(records)
    alignment, rules = _alignment(records)
    designs = tuple(dict.fromkeys(name for names in records.runs["designs"] for name in str(names).split("+")))
    sizes = {design: int(in_design(records.runs, design).sum()) for design in designs}
    effects, notes = design_effects(records, designs, alignment)
    return Analysis(
        records=records,
        verdicts=verdicts,
        recommendations=recommendations(records, verdicts),
        alignment=alignment,
        rules=rules,
        design=max(designs, key=lambda design: sizes[design]),
        designs=designs,
        width_design=_width_design(records, designs, rules),
        effects=effects,
        notes=notes,
    )


def _alignment(records: Records) -> tuple[str | None, tuple[str, ...]]:
    runs = records.runs.loc[~records.runs["rule"].isin(IMPOSED), ["run_id", "rule"]]
    if IMPOSED & set(records.study.rules) and set(runs["rule"]) <= {"bp", "shallow"}:
        return None, ()
    rows = layers_of(records)[["run_id", "signal", *RESPONSES]].merge(runs, on="run_id")
    claimed = Counter(claim.response for claim in records.study.claims if claim.response in RESPONSES)
    order = dict.fromkeys((*(response for response, _ in claimed.most_common()), *RESPONSES))
    for only in ("teaching", "bystander"):
        part = rows[rows["signal"] == only]
        for response in order:
            with_values = set(part.loc[part[response].notna(), "rule"])
            if with_values:
                return response, tuple(rule for rule in records.study.rules if rule in with_values)
    return None, ()


def _width_design(records: Records, designs: tuple[str, ...], rules: tuple[str, ...]) -> str | None:
    """The design with most widths, if it has three or more: two are a contrast, not a curve."""
    if "width" not in records.factors or not rules:
        return None
    levels = {design: level_order(rows_of(records.runs, rule=rules[0], design=design)["width"]) for design in designs}
    best = max(designs, key=lambda design: len(levels[design]))
    return best if len(levels[best]) >= 3 and numeric_levels(levels[best]) else None
