"""The benchmark measures what it says; nothing here depends on how long anything takes."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from typer.testing import CliRunner

from alignkit.benchmark import speed
from alignkit.benchmark.contestants import Case, Engine, bare_products, engine_steps, operations
from alignkit.benchmark.growth import exponent, growth
from alignkit.benchmark.limits import machine
from alignkit.benchmark.memory import cohort_memory
from alignkit.benchmark.operations import profile
from alignkit.benchmark.report import row_text, to_markdown, write_speed
from alignkit.benchmark.speed import Row, Speed
from alignkit.benchmark.timing import Crew, Timing, interleaved
from alignkit.cli.main import app
from alignkit.numerics.precision import supported_precisions

TINY = Case((8, 6, 6, 4), 8, members=2)


class _Counted:
    networks = 4

    def __init__(self):
        self.turns = []

    def run(self, steps):
        self.turns.append(steps)
        torch.ones(1000).sum()


def test_contestants_take_turns_and_are_reckoned_per_network():
    one, other = _Counted(), _Counted()
    timings = interleaved({"one": one, "other": other}, seconds=0.01)
    assert len(one.turns) == len(other.turns) >= 12  # warm-up, a trial, and at least five rounds of two calls
    assert set(one.turns[2::2]) == {1}  # a turn's first step is not timed
    for timing in timings.values():
        assert 0 < timing.least <= timing.low <= timing.median <= timing.high
        assert 2 * timing.rounds == len(one.turns) - 2


@pytest.mark.slow
def test_a_crew_runs_the_same_step_in_every_process():
    with Crew(2, engine_steps, TINY) as crew:
        assert crew.networks == 4
        crew.run(2)
    assert all(process.exitcode == 0 for process in crew._processes)


@pytest.mark.parametrize("measures", ["angles", "all"])
def test_the_engine_trains_and_measures_as_a_study_would(measures):
    engine = Engine(replace(TINY, members=3, probe={"samples": 5, "measures": measures}))
    before = engine.network.parameters.storage.clone()
    engine.step()
    moved = engine.network.parameters.storage.clone()
    engine.measured_step()
    engine.evaluate()
    assert engine.networks == 3
    assert not torch.equal(before, moved) and not torch.equal(moved, engine.network.parameters.storage)
    assert Case((64, 64, 64, 64, 10), 32).cohort_size == 32  # what a study would have


def test_bare_products_are_those_of_a_dfa_step():
    sizes, batch = (5, 4, 3, 2), 7
    counted = []

    class _Products(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            operands = {"bmm": args, "baddbmm_": args[1:]}.get(function.__name__)
            if operands is not None:
                counted.append(2 * operands[0].numel() * operands[1].shape[-1])
            return function(*args, **(kwargs or {}))

    with _Products():
        bare_products(sizes, batch)()
    assert sum(counted) == operations(sizes, batch)


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_exponents_are_those_of_power_laws(power):
    values = [0, 1, 2, 4, 8, 16]
    assert exponent(values, [value**power * 3 + (value < 4) for value in values]) == pytest.approx(power)


@pytest.mark.parametrize(
    "shape,members,sections",
    [
        ((64,), 8, {"network": {"width": 64}, "training": {"batch_size": 32}}),
        ((64,), 8, {"network": {"width": 64, "norm": "batch"}, "training": {"batch_size": 32, "optimiser": "adam"}}),
        ((784,), 2, {"network": {"width": 256}, "training": {"batch_size": 128}}),
        ((784,), 2, {"network": {"width": 256}, "training": {"batch_size": 128}, "probe": {"measures": "angles"}}),
        (
            (784,),
            2,
            {
                "network": {"width": 256, "frozen": 0.5, "signal_masked": 0.5},
                "training": {"batch_size": 128},
                "probe": {"measures": "angles", "reference_masks": "independent", "reference_mode": "eval"},
            },
        ),
        *(
            pytest.param(
                (3, 16, 16),
                2,
                {
                    "network": {"kind": "cnn", "channels": [16, 16], "weight_sharing": sharing},
                    "training": {"batch_size": 64},
                },
                marks=pytest.mark.slow,
            )
            for sharing in (True, False)
        ),
    ],
)
def test_the_memory_model_is_near_what_the_allocator_counts(shape, members, sections):
    modelled, counted = cohort_memory(shape, members, sections)
    assert 0.95 < modelled / counted < 1.4  # numpy's blocks, too, are in the model, and torch's allocator counts none


def test_a_row_reaches_its_target_or_not_or_was_not_measured():
    row = Row("r", "what", 1, ratios={"published": 12.0, "share": 0.2}, target=("published", "at least", 12.0))
    assert row.reached is True
    assert replace(row, target=("published", "at least", 12.1)).reached is False
    assert replace(row, target=("share", "at most", 0.1)).reached is False
    assert replace(row, target=("limit", "at least", 0.9)).reached is None


def test_what_does_not_gain_by_more_cores_is_taken_at_its_time_on_one(monkeypatch):
    def timing(median):
        return Timing(median, median, median, median, 5)

    answers = iter(
        [
            {"code": timing(1.0), "plain loop": timing(0.5), "bare products": timing(0.2), "alignkit": timing(0.25)},
            {"code": timing(9.0), "plain loop": timing(0.4), "bare products": timing(0.1), "alignkit": timing(0.125)},
        ]
    )
    monkeypatch.setattr(speed, "_contest", lambda *arguments: next(answers))
    one, two = speed._network_rows(TINY, ("published", "at least", 8.0), {}, "cpu", 2, 0.1)
    assert one.ratios == pytest.approx({"published": 4.0, "plain": 2.0, "limit": 0.8}) and one.reached is False
    assert two.ratios == pytest.approx({"published": 8.0, "plain": 3.2, "limit": 0.8}) and two.reached is True


def test_everybody_in_a_contest_is_timed():
    timings = speed._contest(TINY, {}, "cpu", 1, 0.01)
    assert set(timings) == {"plain loop", "bare products", "alignkit"}


@pytest.mark.slow
def test_growth_has_a_curve_for_everything(monkeypatch):
    for name in ("MEMBERS", "WIDTHS", "DEPTHS", "CHECKPOINTS"):
        monkeypatch.setattr(f"alignkit.benchmark.growth.{name}", (1, 2, 4))
    curves = growth("cpu", seconds=0.001)
    assert [curve["values"] for curve in curves] == [[1, 2, 4]] * 5
    assert all(min(curve["milliseconds"]) > 0 for curve in curves)


def test_profiles_are_shares():
    shares = profile(TINY, steps=2)
    assert sum(share for _, share in shares) == pytest.approx(1.0) and len(shares) == 9
    assert all(0 <= share <= 1 for _, share in shares)


@pytest.mark.skipif("bf16" not in supported_precisions("cpu"), reason="this processor has no products of bf16 factors")
def test_a_step_in_less_precision_is_timed_against_float32():
    row = speed._precision_row(TINY, "bf16", "cpu", 0.01)
    assert row.ratios == {"precision": row.timings["float32"].median / row.timings["bf16"].median}
    assert "times as fast as in float32" in row_text(row)


def _speed(median=2.0):
    timing = Timing(median, 1.5, 2.5, 1.0, 9)
    row = Row("dfa x", "DFA step", 2, {"alignkit": timing}, {"published": 13.0}, ("published", "at least", 12.0))
    return Speed(
        machine=machine("cpu", 2),
        limits={"gemm_gflops_1": 50.0, "copy_gb_per_s_1": 9.5},
        rows=[row, Row("share", "a share", 1, ratios={"share": 0.2}, target=("share", "at most", 0.05))],
        growth=[{"what": "width", "per": "network", "values": [1], "milliseconds": [0.5], "exponent": 1.0}],
        memory=[{"what": "a cohort", "modelled": 2**20, "counted": 2**20, "ratio": 1.0}],
        profiles={"x": [("bmm", 0.9), ("everything else", 0.1)]},
        published={},
        seconds=3.0,
    )


def test_the_table_says_what_was_reached_and_compares_with_the_time_before(tmp_path):
    page = write_speed(_speed(), tmp_path)
    text = page.read_text(encoding="utf-8")
    assert "13.00 times the fastest published code ✓ (to reach: at least 12)" in text
    assert "20.0% of the time ✗ (to reach: at most 5%)" in text and "of before" not in text
    (stored,) = tmp_path.glob("*.json")
    assert json.loads(stored.read_text(encoding="utf-8"))["rows"][0]["reached"] is True
    write_speed(_speed(median=3.0), tmp_path)
    assert "1.50 of before" in page.read_text(encoding="utf-8")
    assert "No checkout" in to_markdown(_speed())


@pytest.mark.parametrize(
    "arguments,mend",
    [
        (["--published", "nowhere"], "Clone one of"),
        (["--replicates", "3"], "belong to --calibration"),
        (["--calibration", "--published", "x"], "Give one of the two"),
        (["--device", "cuda:99"], "Leave it out"),
    ],
)
def test_what_cannot_be_benchmarked_is_said_in_a_sentence(arguments, mend):
    result = CliRunner().invoke(app, ["bench", *arguments])
    assert result.exit_code != 0 and mend in f"{result.output} {result.exception}"
