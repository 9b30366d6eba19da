"""What the records say of the paper: readings of one seed as published, contrasts over seeds as corrected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from alignkit.claims.panel import Answer, Panel, answer
from alignkit.claims.verdict import Verdict
from alignkit.claims.verdicts import ALPHA, evaluate, panels_of
from alignkit.errors import AnalysisError
from alignkit.papers.launay2019.published import BOTTLENECK, Bottleneck, Hypothesis
from alignkit.papers.published_summary import at_end, published_summary
from alignkit.records.rows import last_layers, rows_of, summarised
from alignkit.records.store import Records
from alignkit.stats.contrasts.arrays import moments, t_interval
from alignkit.stats.contrasts.contrasts import Contrast, contrast
from alignkit.stats.mechanisms.association import Association, within_association
from alignkit.stats.tables.levels import level_column, level_order
from alignkit.study.claim import Claim
from alignkit.study.panel import Question, panel_of

All = Mapping[str, Records]
"""The records of the paper's studies that were run, by name."""


@dataclass(frozen=True)
class Reading:
    """Two levels' cosines as a paper would print them: the best seed's, averaged over the layers where feedback
    enters. Everything else is the same in the two."""

    cosines: tuple[float, float]
    seeds: int


def reading(studies: All, hypothesis: Hypothesis) -> Reading | None:
    """What one seed says of a hypothesis, measured as published; None where that was not run."""
    if hypothesis.published is None or hypothesis.published[0] not in studies:
        return None
    study, factor, levels = hypothesis.published
    records = studies[study]
    table = _with_initialisation(published_summary(records), records)
    if factor not in table:
        return None
    table = table[table["initialisation"] == "pytorch"]
    points = records.study.feedback.points
    table = table[table["layer"].isin(points)] if points else table
    others = [name for name in (*records.factors, "initialisation") if name != factor]
    keys = {name: level_column(table[name]).map(str) for name in others}
    cell = pd.Series("", index=table.index).str.cat(pd.DataFrame(keys), sep="|")
    means = table.assign(at=level_column(table[factor]), others=cell).groupby(["others", "at"])["signal_cosine"].mean()
    both = means.unstack().reindex(columns=list(levels)).dropna()
    if len(both) != 1:  # no arm at one of the levels that differs from one at the other in nothing else
        return None
    return Reading((float(both[levels[0]].iloc[0]), float(both[levels[1]].iloc[0])), int(table["seeds"].max()))


def _with_initialisation(table: pd.DataFrame, records: Records) -> pd.DataFrame:
    """With a column of the initialisation, also where the designs that ran do not vary it."""
    return table if "initialisation" in table else table.assign(initialisation=records.study.network.initialisation)


@dataclass(frozen=True)
class Judged:
    """A hypothesis as one study judges it: its claim's verdict and panel, and what happens to test accuracy.

    `places` are the same contrast at h, z, the weight gradient and the step, in mean cosines, where a study has a
    pilot: its records are older than the angles there.
    """

    study: str
    records: Records
    verdict: Verdict
    panel: Panel
    accuracy: Answer
    places: tuple[Answer, ...] = ()


def judged(studies: All, hypothesis: Hypothesis) -> list[Judged]:
    """What each study says that has the hypothesis's claim, the one that counts first. Of one that has not finished,
    nothing; nor where a profile left the claim out."""
    found = []
    for study, name in hypothesis.corrected:
        records = studies.get(study)
        if records is None or records.missing:
            continue
        verdicts, panels = evaluate(records), panels_of(records)
        for verdict, panel in zip(verdicts, panels, strict=True):
            if verdict.claim.name == name:
                found.append(
                    Judged(study, records, verdict, panel, _accuracy(records, verdict), _places(records, verdict))
                )
    return found


def _accuracy(records: Records, verdict: Verdict) -> Answer:
    question = Question("accuracy", "test accuracy", "declared", "test_accuracy")
    return answer(records, _about(verdict.claim, "test_accuracy", 0.0), question, alpha=ALPHA)


def _places(records: Records, verdict: Verdict) -> tuple[Answer, ...]:
    if records.study.pilot is None:
        return ()
    claim = _about(verdict.claim, "signal_cosine", COSINE_MARGIN)
    questions = [each for each in panel_of(claim, records.study) if each.group in ("declared", "place")]
    return tuple(answer(records, claim, each, alpha=ALPHA) for each in questions)


COSINE_MARGIN = 0.035
"""The smallest change of a mean cosine that matters: two degrees move a cosine by no more."""


def _about(claim: Claim, response: str, smallest_effect: float) -> Claim:
    """A claim on an angle as one on what is the larger the better."""
    other = "increase" if claim.direction == "decrease" else "decrease"
    return claim.model_copy(update={"response": response, "direction": other, "smallest_effect": smallest_effect})


def bottleneck(records: Records) -> pd.DataFrame:
    """A row per size and initialisation: accuracies in % and the cosine at each layer, as published and here."""
    table = _with_initialisation(published_summary(records), records)
    rows = []
    for _, own in table.dropna(subset=["bottleneck"]).groupby(["initialisation", "bottleneck"]):
        first = own.iloc[0]
        here = Bottleneck(
            int(first["bottleneck"]), str(first["initialisation"]), first["train_accuracy"], first["test_accuracy"],
            tuple(own.sort_values("layer")["signal_cosine"]),
        )  # fmt: skip
        known = [row for row in BOTTLENECK if (row.size, row.initialisation) == (here.size, here.initialisation)]
        rows.append({"size": here.size, "initialisation": here.initialisation, **_columns("here", here)})
        if known:
            rows[-1] |= _columns("published", known[0])
    return pd.DataFrame(rows).sort_values(["initialisation", "size"], ascending=[False, True], ignore_index=True)


def _columns(where: str, row: Bottleneck) -> dict[str, float]:
    cosines = {f"{where}_layer{index}": value for index, value in enumerate(row.cosines, start=1)}
    return {f"{where}_train": row.train, f"{where}_test": row.test, **cosines}


def bottleneck_distance(table: pd.DataFrame) -> tuple[float, float, int]:
    """The median distance of cosines from the published ones, the largest of test accuracies in points, and how many
    published rows were run."""
    if "published_test" not in table:
        return float("nan"), float("nan"), 0
    both = table.dropna(subset=["published_test"])
    cosines = [abs(both[f"here_layer{k}"] - both[f"published_layer{k}"]) for k in (1, 2, 3)]
    return (
        float(np.nanmedian(np.concatenate([values.to_numpy(float) for values in cosines]))),
        float(abs(both["here_test"] - both["published_test"]).max()),
        len(both),
    )


def layer_means(records: Records, *, rule: str, layer: int | None = None) -> pd.DataFrame:
    """A row per run: cosine, ceiling, and the share of the ceiling that is reached, at the end of training.

    Averages over hidden layers, or those of one.
    """
    last = last_layers(records)
    last = last if layer is None else last[last["layer"] == layer]
    values = last.assign(share=last["signal_cosine"] / last["ceiling_cosine"])
    columns = ["signal_cosine", "ceiling_cosine", "share"]
    known = values[columns].notna().groupby(values["run_id"]).all()
    means = values.groupby("run_id")[columns].mean().where(known)  # a run without one layer's value has no average
    runs = records.runs[records.runs["rule"] == rule]
    return runs.merge(means.reset_index(), on="run_id")


def ceilings(
    records: Records, factors: Sequence[tuple[str, tuple[str, str]]], layers: Sequence[int | None]
) -> pd.DataFrame:
    """What each factor does to the cosine, to its ceiling, and to the share of the ceiling that is reached, at the
    layers (None: on average over all): contrasts per seed over the other factors."""
    rows = []
    for factor, levels in factors:
        for layer in layers:
            table = layer_means(records, rule="dfa", layer=layer)
            if factor not in table or not set(levels) <= set(level_order(table[factor])):
                continue  # a profile left it out
            row: dict[str, object] = {"factor": factor, "from": levels[0], "to": levels[1], "layer": layer or "mean"}
            for response in ("signal_cosine", "ceiling_cosine", "share"):
                effect = _contrast(table, factor, levels, response, records.factors)
                row |= {response: effect.estimate, f"{response}_low": effect.interval[0]}
                row |= {f"{response}_high": effect.interval[1]}
            rows.append(row)
    return pd.DataFrame(rows)


def cells(records: Records) -> pd.DataFrame:
    """Each cell of a factorial: mean over seeds of cosine, ceiling and share at layers 1 to 3, and accuracy in %."""
    columns = ["signal_cosine", "ceiling_cosine", "share"]
    parts: list[pd.DataFrame] = []
    for layer in (1, 2, 3):
        table = layer_means(records, rule="dfa", layer=layer)
        of_cell = table.groupby(list(records.factors), dropna=False)
        parts.append(of_cell[columns].mean().rename(columns={name: f"{name}_{layer}" for name in columns}))
    means = pd.concat(parts, axis="columns")
    means["test_accuracy"] = 100 * of_cell["test_accuracy"].mean()
    return means.reset_index()


def defect_effects(records: Records) -> pd.DataFrame:
    """What each way of measuring adds to the cosine against one pass, by network, layer by layer, and at the output."""
    last = last_layers(records)
    output = at_end(records.checkpoints).set_index("run_id")["output_cosine"]
    ways = [name for name in records.runs["measured"].unique() if name != "in_one_pass"]
    rows = []
    for trained in records.runs["trained"].unique():
        runs = records.runs[records.runs["trained"] == trained]
        for way in ways:
            for layer in (1, 2, 3, "output"):
                hidden = last[last["layer"] == layer].set_index("run_id")["signal_cosine"]
                table = runs.assign(value=runs["run_id"].map(output if layer == "output" else hidden))
                effect = _contrast(table, "measured", ("in_one_pass", way), "value", ())
                low, high = effect.interval
                rows.append(
                    {
                        "trained": trained, "measured": way, "layer": layer, "one_pass": effect.level_means[0],
                        "cosine": effect.level_means[1], "change": effect.estimate, "low": low, "high": high,
                        "seeds": effect.n_seeds,
                    }
                )  # fmt: skip
    return pd.DataFrame(rows)


def _contrast(
    table: pd.DataFrame, factor: str, levels: tuple[str, str], response: str, factors: Sequence[str]
) -> Contrast:
    within = [name for name in factors if name != factor]
    return contrast(table, factor=factor, levels=levels, response=response, within=within)


def accuracy_association(records: Records, *, within_cells: bool) -> Association | None:
    """How angle and test accuracy go together over DFA runs: between the arms of a seed, or within cells."""
    measured = records.layers["gradient_angle_deg"].notna().any()
    angles = summarised(records, "gradient_angle_deg" if measured else "signal_angle_deg")
    accuracy = summarised(records, "test_accuracy").set_index("run_id")["value"]
    table = angles[angles["rule"] == "dfa"].assign(accuracy=lambda rows: rows["run_id"].map(accuracy))
    try:
        return within_association(table, mediator="value", outcome="accuracy", within=["cell"] if within_cells else [])
    except AnalysisError:
        return None


def spreads(records: Records) -> tuple[float, float]:
    """The median over arms and layers of the cosine's sd over samples (of one seed), and of that over seeds."""
    table = published_summary(records)
    table = table[table["rule"] == "dfa"]
    return float(table["samples_sd"].median()), float(table["seeds_sd"].median())


PROTOCOLS = {
    "released": "as released",
    "feedback_everywhere": "feedback at layer 1 too",
    "one_mode": "one mode for both signals",
    "shared_masks": "the same masks for both",
    "own_feedback": "feedback of its own for each layer",
}
"""The steps of the ladder that have the released rates, from the first to the last."""
SHORT = {
    "released": "released", "feedback_everywhere": "+ layer 1", "one_mode": "+ one mode",
    "shared_masks": "+ same masks", "own_feedback": "+ own feedback", "own_rate": "+ own rate",
    "batch_statistics": "batch statistics", "weight_gradient": "weight gradient",
}  # fmt: skip
"""The steps in few words."""
TUNED = {
    "own_rate": ("a rate of its own for each arm and seed", "signal_cosine", "eval"),
    "batch_statistics": ("… measured under batch statistics", "signal_cosine", "batch"),
    "weight_gradient": ("… measured at the weight gradient", "gradient_cosine", "eval"),
}
"""The last steps, from the corrected study: their words, and the measure and mode that is taken there."""
LADDER = {
    "batch norm": ("plain", "batch_norm"),
    "tanh over ReLU": ("relu", "plain"),
    "slope .5 over .01": ("leaky_01", "leaky_50"),
    "low dropout over high": ("high_dropout", "low_dropout"),
    "masks (24% kept)": ("plain", "masked"),
}
"""The practices of the ladder: from and to."""
PRACTICES = {
    "plain": {"design": "norm_and_unit", "norm": "none", "unit": "tanh"},
    "batch_norm": {"design": "norm_and_unit", "norm": "batch", "unit": "tanh"},
    "relu": {"design": "norm_and_unit", "norm": "none", "unit": "relu"},
    "leaky_50": {"design": "slopes", "unit": "leaky_50"},
    "leaky_01": {"design": "slopes", "unit": "leaky_01"},
    "low_dropout": {"design": "dropout", "dropout_rates": "low"},
    "high_dropout": {"design": "dropout", "dropout_rates": "high"},
}
"""Where the corrected study has each practice of the ladder: design and levels."""


def ladder_values(studies: All) -> pd.DataFrame:
    """A row per step, practice and seed of the ladder: the cosine, averaged over hidden layers, and test accuracy.

    `same` marks values of the step before, where a step cannot change the practice's network nor its measure.
    """
    records = studies["ladder"]
    last = last_layers(records).groupby("run_id")["signal_cosine"].mean()
    runs = records.runs.assign(cosine=records.runs["run_id"].map(last))
    rows, before = [], pd.DataFrame()
    for step in PROTOCOLS:
        own = runs[runs["protocol"] == step][["practice", "seed", "cosine", "test_accuracy"]].assign(same=False)
        kept = before[~before["practice"].isin(own["practice"])].assign(same=True) if len(before) else before
        before = pd.concat([own, kept]) if len(kept) else own
        rows.append(before.assign(step=step))
    corrected = studies.get("corrected_fc")
    if corrected is not None and corrected.study.tuning is not None and not corrected.missing:
        rows += [_tuned_values(corrected, step, response, mode) for step, (_, response, mode) in TUNED.items()]
    return pd.concat(rows, ignore_index=True)


def _tuned_values(records: Records, step: str, response: str, mode: str) -> pd.DataFrame:
    mode = mode if mode in records.study.probe.every_mode else records.study.probe.mode
    table = summarised(records, response, mode=mode)
    accuracy = summarised(records, "test_accuracy").set_index("run_id")["value"]
    table = table.assign(cosine=table["value"], test_accuracy=table["run_id"].map(accuracy) / 100)
    rows = []
    for practice, where in PRACTICES.items():
        own = rows_of(table, design=where["design"])
        for factor, level in where.items():
            own = own if factor == "design" else own[own[factor].map(str) == level]
        rows.append(own.assign(practice=practice)[["practice", "seed", "cosine", "test_accuracy"]])
    return pd.concat(rows).assign(step=step, same=False)


def ladder(values: pd.DataFrame) -> pd.DataFrame:
    """A row per step and practice: the change of the cosine under the first seed, its mean over seeds with a 95%
    interval, and whether the step can change it at all."""
    rows = []
    for step, at in values.groupby("step", sort=False):
        table = at.pivot(index="seed", columns="practice", values="cosine")
        same = at.groupby("practice")["same"].all()
        for name, (low, high) in LADDER.items():
            if not {low, high} <= set(table.columns):
                continue
            change = (table[high] - table[low]).dropna()
            of = moments(change.to_numpy(float)[None])
            lower, upper = t_interval(of)
            rows.append(
                {
                    "step": step, "practice": name, "one_seed": change.iloc[0], "mean": of.mean[0],
                    "low": lower[0], "high": upper[0], "n_seeds": len(change), "same": bool(same[low] and same[high]),
                }
            )  # fmt: skip
    return pd.DataFrame(rows)
