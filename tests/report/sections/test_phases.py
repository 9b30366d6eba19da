"""The section on when alignment comes: known times reach the page, and what is not known is said."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from synthetic import grid, synthetic_records

from alignkit.claims.analysis import analyse
from alignkit.errors import AnalysisError
from alignkit.figures.phases import phase_spans
from alignkit.records.store import Records
from alignkit.records.summaries import own_signal
from alignkit.report.section import Answer
from alignkit.report.sections.phases import phases
from alignkit.stats.curves.phases import PhaseSummary
from alignkit.text import ABSENT

STEPS = (0, 1, 2, 4, 8, 16, 32, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
ONE = {"study": grid({"network.depth": [3]})}
TWO = {"widths": grid({"network.width": [16, 32], "network.depth": [3]})}


def timed(*, layers: tuple[float, ...], loss: float, **options: Any) -> Records:
    """Runs whose layers go from 90 to 50 degrees, and whose loss falls, with these time constants (jittered by seed)."""
    records = synthetic_records(**{"designs": ONE, "seeds": 6, "steps": STEPS, "rules": ("dfa",), **options})
    seed = records.runs.set_index("run_id")["seed"]
    jitter = 2 ** np.random.default_rng(3).normal(0, 0.05, seed.max() + 1)

    def progress(table: pd.DataFrame, tau: np.ndarray) -> np.ndarray:
        return 1 - np.exp(-table["step"].to_numpy() / (tau * jitter[table["run_id"].map(seed)]))

    table = records.layers
    tau = np.array(layers)[table["layer"].to_numpy() - 1]
    angle = pd.Series(90 - 40 * progress(table, tau), table.index)
    fall = progress(records.checkpoints, np.full(len(records.checkpoints), loss))
    return replace(
        records,
        layers=table.assign(signal_angle_deg=angle.where(table["signal_angle_deg"].notna())),
        checkpoints=records.checkpoints.assign(train_loss=2.3 - 2.2 * fall),
    )


def section(records: Records) -> Answer:
    found = phases(analyse(records))
    assert found is not None
    return found


def row(found: Answer, table: str, first: str) -> tuple[str, ...]:
    (rows,) = (each.rows for each in found.tables if each.name == table)
    (line,) = (each for each in rows if each[0] == first)
    return line


def test_known_times_order_and_lag_reach_the_page() -> None:
    found = section(timed(layers=(15, 30, 60), loss=120))
    for layer, tau in ((1, 15), (2, 30), (3, 60)):
        # 90% of what is reached by the end, of an exponential approach; checkpoints are up to an octave apart
        saturation = -tau * np.log(1 - 0.9 * (1 - np.exp(-1024 / tau)))
        shown = float(row(found, "phases", f"saturation, layer {layer}")[1])
        assert shown == pytest.approx(saturation, rel=0.12)
        lag = row(found, "phases_order", f"loss after saturation, layer {layer}")[1]
        assert float(lag) == pytest.approx(np.log2(120 / tau), abs=0.15)
    assert float(row(found, "phases_order", "saturation: layer last after first")[1]) == pytest.approx(2, abs=0.15)
    text = " ".join(found.sentences)
    assert "Lower layers begin to align first" in text and "Lower layers saturate first" in text
    assert "networks align, then memorise (p .031)" in text
    assert "Page trend p <.001 over 3 layers" in text
    assert [chart.name for chart in found.charts] == ["phases_times"]


def test_upper_layers_first_and_fitting_before_alignment() -> None:
    text = " ".join(section(timed(layers=(60, 30, 15), loss=5)).sentences)
    assert "Upper layers saturate first" in text
    assert "alignment still improves when most of the fitting is done" in text


def test_layers_at_the_same_time_have_no_order() -> None:
    assert "No order in which layers saturate is shown" in " ".join(
        section(timed(layers=(30, 30, 30), loss=5)).sentences
    )


def test_each_taught_rule_has_its_tables() -> None:
    found = section(timed(layers=(15, 30, 60), loss=120, rules=("dfa", "fa", "shallow"), seeds=2))
    assert [table.name for table in found.tables] == ["phases", "phases_order", "phases_fa", "phases_order_fa"]
    assert len(found.charts[0].figure.axes) == 2


def test_what_never_aligns_is_said_in_words() -> None:
    records = timed(layers=(30, 30, 30), loss=60)
    layers = records.layers
    records = replace(
        records, layers=layers.assign(signal_angle_deg=layers["signal_angle_deg"].mask(layers["layer"] == 3, 91.0))
    )
    found = section(records)
    assert row(found, "phases", "onset, layer 3")[1:3] == ("not by the end", "[beyond the end]")
    assert row(found, "phases", "onset, layer 3")[5] == "6"
    assert "layer 3 begins to align by the end of training in half of the seeds or fewer" in found.sentences[0]


def test_diverged_runs_are_counted() -> None:
    found = section(timed(layers=(15, 30, 60), loss=120, designs=TWO, diverge=(("network.width", 32),)))
    line = row(found, "phases", "onset, layer 1")
    assert line[4:] == ("12", "0", "2")
    assert any("2 of 12 runs left out" in note for note in found.notes)


def test_one_layer_has_times_and_no_order() -> None:
    found = section(timed(layers=(30,), loss=60, designs={"study": grid({"network.depth": [1]})}))
    assert not any("layers" in sentence and "first" in sentence for sentence in found.sentences)
    assert row(found, "phases", "saturation, layer 1")[1] != ABSENT


def test_one_seed_shows_times_and_no_test() -> None:
    found = section(timed(layers=(15, 30, 60), loss=120, seeds=1))
    assert "which is no test" in " ".join(found.sentences) and "p ." not in " ".join(found.sentences)
    assert row(found, "phases_order", "onset: layer last after first")[2:5] == (ABSENT, ABSENT, ABSENT)


def test_without_a_training_loss_the_layers_remain() -> None:
    found = section(synthetic_records(designs=ONE, seeds=2, steps=STEPS))
    assert not any("training loss" in sentence for sentence in found.sentences)
    assert any("training loss: expected values" in note for note in found.notes)


def test_an_order_of_the_ends_is_no_order_of_all() -> None:
    """The upper of three layers is as late as the second: the last comes after the first, not each after the one below."""
    records = timed(layers=(15, 60, 60), loss=120)
    generator = np.random.default_rng(0)
    seed = records.layers["run_id"].map(records.runs.set_index("run_id")["seed"])
    delay = 1 + 0.1 * generator.normal(size=(seed.max() + 1, 3))[seed, records.layers["layer"] - 1]
    angle = 90 - (90 - records.layers["signal_angle_deg"]) * delay.clip(0.5, 1.5)
    found = section(replace(records, layers=records.layers.assign(signal_angle_deg=angle)))
    text = " ".join(found.sentences)
    assert "Lower layers saturate first" not in text
    assert re.search(r"The last layer saturates \S+ doublings of training time \[[^]]*\] after the first", text)
    assert re.search(r"that order is shown for 2 after 1; neither for 3 after 2 \(p \.\d+\)", text)


def test_a_lag_below_zero_is_said_as_before() -> None:
    text = " ".join(section(timed(layers=(60, 30, 15), loss=5)).sentences)
    assert re.search(r"\d doublings of training time \[\+[^]]*\] before alignment saturates", text)


def test_cosines_have_phases_too() -> None:
    records = timed(layers=(15, 30, 60), loss=120)
    cosine = np.cos(np.radians(records.layers["signal_angle_deg"]))
    layers = records.layers.assign(signal_angle_deg=np.nan, signal_cosine=cosine)
    assert "Lower layers saturate first" in " ".join(section(replace(records, layers=layers)).sentences)


@pytest.mark.parametrize("options", [{"rules": ("bp",)}, {"rules": ("shallow",)}, {"measures": ()}])
def test_without_taught_alignment_there_is_no_question(options: dict[str, Any]) -> None:
    assert phases(analyse(synthetic_records(**{"designs": ONE, "seeds": 2, **options}))) is None


@pytest.mark.parametrize("steps", [(360,), (0, 180, 360)])
def test_too_few_checkpoints_are_refused(steps: tuple[int, ...]) -> None:
    with pytest.raises(AnalysisError, match="at least 4 checkpoints"):
        phases(analyse(synthetic_records(designs=ONE, seeds=2, steps=steps)))


def test_the_signal_that_taught_a_run_is_its_own() -> None:
    records = synthetic_records(designs=ONE, seeds=2, steps=(0, 360))
    both = pd.concat([records.layers, records.layers.assign(signal="bystander", signal_angle_deg=90.0)])
    kept = own_signal(both)
    dfa = set(records.runs.loc[records.runs["rule"] == "dfa", "run_id"])
    assert set(kept.loc[kept["run_id"].isin(dfa), "signal"]) == {"teaching"}
    assert set(kept["run_id"]) == set(records.runs["run_id"])


def test_the_figure_marks_what_is_not_over_by_the_end() -> None:
    inf = float("inf")

    def times(estimate: float, high: float) -> pd.DataFrame:
        return PhaseSummary("onset", "1", estimate, (10.0, high), 0.97, 6, 6, 0, 0, "").to_frame().assign(rule="dfa")

    for estimate, high, arrows in ((20.0, 40.0, 0), (20.0, inf, 1), (inf, inf, 1)):
        figure = phase_spans(times(estimate, high), steps={"dfa": [0, 10, 100]})
        assert sum(line.get_marker() == ">" for line in figure.axes[0].get_lines()) == arrows
    with pytest.raises(AnalysisError, match="got none"):
        phase_spans(times(float("nan"), float("nan")), steps={"dfa": [0, 10]})
