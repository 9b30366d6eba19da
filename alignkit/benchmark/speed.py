"""How fast alignkit is, against plain loops, published codes and the machine's own limits, in one run."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from alignkit.benchmark.contestants import Case, Engine, bare_products, engine_steps, gathering
from alignkit.benchmark.growth import SMALL, growth
from alignkit.benchmark.limits import machine, machine_limits
from alignkit.benchmark.memory import memory
from alignkit.benchmark.operations import profile
from alignkit.benchmark.plain import plain_cnn_step, plain_step
from alignkit.benchmark.published import build, recognise
from alignkit.benchmark.timing import SPINNING_SECONDS, Contestant, Crew, Steps, Timing, interleaved
from alignkit.execution.checks import plan_cohorts
from alignkit.execution.estimate import estimate
from alignkit.execution.run_study import known_rates, open_study, study_plan
from alignkit.measures.schedule import schedule
from alignkit.numerics.precision import supported_precisions
from alignkit.settings.probe import ProbeOptions
from alignkit.settings.training import MatmulPrecision

NETWORKS = (
    (SMALL, 12.0),
    (Case((64, 256, 256, 256, 10), 128), 2.5),
    (Case((784, 256, 256, 256, 10), 128), 2.0),
)
"""Fully connected networks, and how many times faster than the fastest published code alignkit is to be."""
PROTOCOL = Case((3072, 800, 800, 800, 10), 128)
"""The fully connected network of Launay, Poli and Krzakala (2019)."""
PROTOCOL_CNN = Case(
    (576, 128, 10), 128, shape=(3, 32, 32), network={"kind": "cnn", "channels": [32, 64, 64]}, members=20
)
PROTOCOL_EPOCHS, PROTOCOL_STEPS = 50, 390
GPU_MEMBERS = 64
SIDE_BY_SIDE = ("alignkit", "bare products")
"""Contestants that use several cores by a process each."""
LR = 1e-3

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Row:
    """One line of the table: what was timed on how many cores, what it comes to, and what it was to be.

    `timings` are in milliseconds per network and step. `ratios` hold what their names say: `published` and `plain`,
    how many times alignkit is faster than the fastest published code, and than the plain loop; `limit`, which share
    of the bare products' rate it has; others, costs relative to a step. `target` is (ratio, "at least" or
    "at most", value); `reached` is None where the ratio was not measured.
    """

    name: str
    what: str
    cores: int
    timings: dict[str, Timing] = field(default_factory=dict)
    ratios: dict[str, float] = field(default_factory=dict)
    target: tuple[str, str, float] | None = None

    @property
    def reached(self) -> bool | None:
        if self.target is None or self.target[0] not in self.ratios:
            return None
        name, side, value = self.target
        return self.ratios[name] >= value if side == "at least" else self.ratios[name] <= value


@dataclass(frozen=True)
class Speed:
    """All that one run of the benchmark found on a machine."""

    machine: dict[str, Any]
    limits: dict[str, float]
    rows: list[Row]
    growth: list[dict[str, Any]]
    memory: list[dict[str, Any]]
    profiles: dict[str, list[tuple[str, float]]]
    published: dict[str, str]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Ready for `json.dumps`."""
        rows = [{**asdict(row), "reached": row.reached} for row in self.rows]
        return {**asdict(self), "rows": rows}


def measure_speed(
    *,
    published: Sequence[Path] = (),
    device: str = "cpu",
    seconds: float = 2.0,
    cores: int | None = None,
    on_progress: Progress = lambda what: None,
) -> Speed:
    """Times everything of the table, for about `seconds` per contestant and row.

    published : checkouts of published codes (`published.py`) to compare with.
    """
    started = time.perf_counter()
    checkouts = {recognise(path): path for path in published}
    cores = 1 if device.startswith("cuda") else cores or len(os.sched_getaffinity(0))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        on_progress("the machine")
        limits = machine_limits(device, cores)
        rows = []
        for case, target in NETWORKS:
            on_progress(case.label)
            goal = ("published", "at least", 50.0 if device.startswith("cuda") else target)
            rows += _network_rows(case, goal, checkouts, device, cores, seconds)
        on_progress("batch norm and dropout")
        rows.append(_stages_row(device, seconds))
        on_progress(PROTOCOL.label)
        goal = ("limit", "at least", 0.5 if device.startswith("cuda") else 0.9)
        rows += _network_rows(PROTOCOL, goal, checkouts, device, cores, seconds)
        on_progress("the protocol's convolutional network")
        rows.append(_cnn_row(device, seconds))
        on_progress("lower precision")
        for precision in supported_precisions(device)[1:]:
            rows += [_precision_row(case, precision, device, seconds) for case in (NETWORKS[-1][0], PROTOCOL)]
        on_progress("measuring")
        rows += [*_measuring_rows(checkouts, device, seconds), _share_row(device, seconds), _quick_row(device)]
        on_progress("memory")
        held = memory(device)
        on_progress("growth")
        grown = growth(device, seconds=seconds / 2)
        on_progress("profiles")
        profiles = {case.label: profile(replace(case, device=device)) for case in (SMALL, NETWORKS[-1][0], PROTOCOL)}
    finally:
        torch.set_num_threads(threads)
    return Speed(
        machine=machine(device, cores),
        limits=limits,
        rows=rows,
        growth=grown,
        memory=held,
        profiles=profiles,
        published={name: path.name for name, path in checkouts.items()},
        seconds=round(time.perf_counter() - started, 1),
    )


def _network_rows(
    case: Case, target: tuple[str, str, float], checkouts: dict[str, Path], device: str, cores: int, seconds: float
) -> list[Row]:
    """A fully connected network's DFA step, everyone in turn, on one core and on all.

    On all, what does not gain by more threads is taken at its time with one.
    """
    case = _placed(case, device)
    alone: dict[str, Timing] = {}
    rows = []
    for used in dict.fromkeys((1, cores)):
        timings = _contest(case, checkouts, device, used, seconds)
        others = {
            name: min(timing, alone.get(name, timing), key=lambda timing: timing.median)
            for name, timing in timings.items()
            if name not in SIDE_BY_SIDE
        }
        what = f"DFA step, {case.label}, batch {case.batch}; cohorts of {case.cohort_size}"
        ratios = _ratios({**timings, **others})
        rows.append(Row(f"dfa {case.label}", what, used, timings, ratios, target))
        alone = alone or timings
    return rows


def _contest(case: Case, checkouts: dict[str, Path], device: str, cores: int, seconds: float) -> dict[str, Timing]:
    """Published codes, the plain loop and bare products with `cores` threads, alignkit with as many processes.

    Everybody gathers a batch from the data first, as any training does.
    """
    gathered = gathering(case)
    contestants: dict[str, Contestant] = {}
    for name, path in checkouts.items():
        step = build(path, sizes=case.sizes, lr=LR, device=device, seed=0).step
        contestants[name] = Steps(partial(_on, step, gathered), threads=cores, device=device)
    plain = plain_step(sizes=case.sizes, lr=LR, device=device)
    contestants["plain loop"] = Steps(partial(_on, plain, gathered), threads=cores, device=device)
    if cores == 1:
        contestants["bare products"] = _products_of(case)
        contestants["alignkit"] = engine_steps(case)
        return interleaved(contestants, seconds=seconds)
    # networks side by side, one process a core: no network shares one with another
    with Crew(cores, _products_of, case) as limit, Crew(cores, engine_steps, case) as crew:
        everybody = {**contestants, "bare products": limit, "alignkit": crew}
        return interleaved(everybody, seconds=seconds, pause=SPINNING_SECONDS)


def _on(step: Callable[[Tensor, Tensor], Any], batch: Callable[[], tuple[Tensor, Tensor]]) -> None:
    step(*batch())


def _products_of(case: Case) -> Contestant:
    members = case.cohort_size if case.device.startswith("cuda") else 1
    products = bare_products(case.sizes, case.batch, members=members, device=case.device)
    return Steps(products, networks=members, device=case.device)


def _stages_row(device: str, seconds: float) -> Row:
    """What batch norm and dropout add to the small network's step."""
    bare = Engine(_placed(SMALL, device))
    stages = replace(SMALL, network={"norm": "batch", "dropout": 0.1})
    full = Engine(_placed(stages, device))
    timings = interleaved(
        {"plain stages": bare.contestant(bare.step), "batch norm, dropout": full.contestant(full.step)}, seconds=seconds
    )
    ratios = {"step": timings["batch norm, dropout"].median / timings["plain stages"].median}
    what = f"{SMALL.label} with batch norm and dropout, against its plain step"
    return Row("stages", what, 1, timings, ratios, ("step", "at most", 2.0))


def _precision_row(case: Case, precision: MatmulPrecision, device: str, seconds: float) -> Row:
    """What products of less precise factors gain, where a study asks for them."""
    exact, low = (engine_steps(replace(_placed(case, device), precision=each)) for each in ("float32", precision))
    timings = interleaved({"float32": exact, precision: low}, seconds=seconds)
    ratios = {"precision": timings["float32"].median / timings[precision].median}
    return Row(
        f"{precision} {case.label}", f"DFA step in {precision}, {case.label}, batch {case.batch}", 1, timings, ratios
    )


def _cnn_row(device: str, seconds: float) -> Row:
    gpu = device.startswith("cuda")
    case = _placed(PROTOCOL_CNN if gpu else replace(PROTOCOL_CNN, members=None), device)
    plain = plain_cnn_step(lr=LR, device=device)
    contestants = {"plain loop": Steps(partial(_on, plain, gathering(case)), device=device)}
    timings = interleaved({**contestants, "alignkit": engine_steps(case)}, seconds=seconds)
    what = f"DFA step, convolutional network of the protocol, batch {case.batch}; {case.cohort_size} members"
    return Row("dfa cnn", what, 1, timings, _ratios(timings), ("plain", "at least", 10.0) if gpu else None)


def _measuring_rows(checkouts: dict[str, Path], device: str, seconds: float) -> list[Row]:
    """What a measurement of the 784-256 network costs, in its own steps; published codes in theirs."""
    case = _placed(NETWORKS[-1][0], device)
    gathered = gathering(case)
    contestants: dict[str, Contestant] = {}
    for name, path in checkouts.items():
        trainee = build(path, sizes=case.sizes, lr=LR, device=device, seed=0)
        if trainee.measure is not None:
            contestants[name] = Steps(partial(_on, trainee.step, gathered), device=device)
            contestants[f"{name}, measuring"] = Steps(partial(_on, trainee.measure, gathered), device=device)
    angles = Engine(replace(case, probe={"measures": "angles"}))
    everything = Engine(case)
    contestants["alignkit"] = everything.contestant(everything.step)
    contestants["alignkit, step and angles"] = angles.contestant(angles.measured_step)
    contestants["alignkit, step and everything"] = everything.contestant(everything.measured_step)
    timings = interleaved(contestants, seconds=seconds)
    own = {
        what: timings[f"alignkit, step and {what}"].median / timings["alignkit"].median - 1.0
        for what in ("angles", "everything")
    }
    theirs = {
        f"{name}, one measure": timings[f"{name}, measuring"].median / timings[name].median
        for name in checkouts
        if f"{name}, measuring" in timings
    }
    what = f"one measurement of {case.label}, batch and probe of 128, in steps"
    return [
        Row("angles", what, 1, timings, {"angles": own["angles"], **theirs}, ("angles", "at most", 1.5)),
        Row("everything", what, 1, {}, {"everything": own["everything"]}, ("everything", "at most", 4.0)),
    ]


def _share_row(device: str, seconds: float) -> Row:
    """The share of a study's time that measuring takes at the protocol's length, with the default schedule."""
    engine = Engine(_placed(PROTOCOL, device))
    contestants = {
        "step": engine.contestant(engine.step),
        "step and everything": engine.contestant(engine.measured_step),
        "losses and accuracies of one split": engine.contestant(engine.evaluate),
    }
    timings = interleaved(contestants, seconds=seconds)
    checkpoints = len(schedule(ProbeOptions(), steps_per_epoch=PROTOCOL_STEPS, epochs=PROTOCOL_EPOCHS))
    step = timings["step"].median
    splits = 3 * timings["losses and accuracies of one split"].median
    measuring = checkpoints * (timings["step and everything"].median - step + splits)
    ratios = {"share": measuring / (measuring + PROTOCOL_STEPS * PROTOCOL_EPOCHS * step)}
    what = (
        f"measuring's share of a study: {PROTOCOL.label}, {PROTOCOL_EPOCHS} epochs, everything at {checkpoints} "
        "checkpoints"
    )
    return Row("share", what, 1, timings, ratios, ("share", "at most", 0.05))


def _quick_row(device: str) -> Row:
    """Measuring's share of the quick study, from a few steps and a checkpoint of each kind of its cohorts."""
    source = open_study("quick")
    cost = estimate(plan_cohorts(study_plan(source, rates=known_rates(source, None)), device=device), device=device)
    what = "measuring's share of the quick study, losses and accuracies included"
    return Row("quick share", what, 1, ratios={"share": cost.measuring / cost.seconds})


def _ratios(timings: dict[str, Timing]) -> dict[str, float]:
    own = timings["alignkit"].median
    known = [name for name in timings if name not in (*SIDE_BY_SIDE, "plain loop")]
    ratios = {"published": min(timings[name].median for name in known) / own} if known else {}
    ratios["plain"] = timings["plain loop"].median / own
    if "bare products" in timings:
        ratios["limit"] = timings["bare products"].median / own
    return ratios


def _placed(case: Case, device: str) -> Case:
    members = case.members or (GPU_MEMBERS if device.startswith("cuda") else None)
    return replace(case, device=device, members=members)
