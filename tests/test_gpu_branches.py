"""What only a GPU runs: all of the engine goes through there, and no step makes the host wait.

The cases run on the device of `fake_gpu.py`, all in one process of its own.
"""

from __future__ import annotations

import functools
import gc
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import numpy as np
import pytest
import torch
from torch import Tensor

from alignkit.benchmark.contestants import Case, Engine
from alignkit.columns import MEASURES
from alignkit.data.dataset import Dataset, Split, gather
from alignkit.execution.devices import choose_device, default_workers
from alignkit.measures.probe import Probe
from alignkit.networks.members import Member
from alignkit.networks.network import Network, Pass
from alignkit.networks.stages import training_mode
from alignkit.numerics.machine import device_name
from alignkit.numerics.precision import multiplying_in, reproducible
from alignkit.rules import rule_class
from alignkit.rules.base import StepTaken
from alignkit.rules.bp import BP
from alignkit.rules.dfa import DFA
from alignkit.settings.network import CNN, MLP
from alignkit.settings.probe import ProbeOptions
from alignkit.settings.rules import RULES
from alignkit.settings.study_options import Settings
from alignkit.settings.training import Training
from alignkit.settings.validation import with_tags
from alignkit.study.runs import Run
from alignkit.training.cohorts import Cohort
from alignkit.training.loop import probe_batch, train_cohort
from alignkit.training.memory import DataShape, member_bytes, most_members
from alignkit.training.prealignment import prealign
from alignkit.training.update import Update

fake_gpu = pytest.importorskip(
    "fake_gpu", reason="this torch has no fake tensors on a device of Python alone", exc_type=ImportError
)

TORCH = str(Path(torch.__file__).parent)
FLAT, IMAGES = (12,), (2, 5, 5)
OUTPUTS, MEMBERS, BATCH, STEPS = 2, 2, 4, 3
CONVOLUTIONS = {
    "kind": "cnn", "channels": [2, 4], "kernel": 3, "padding": 1, "pool": 2, "pool_stride": 2, "hidden": [6],
}  # fmt: skip

CASES: dict[str, dict[str, Any]] = {
    "a member alone": {
        "rule": "bp", "recorded": True, "members": 1, "network": {"widths": [8]},
    },
    "shallow": {
        "rule": "shallow", "network": {"widths": [8]}, "probe": {"measures": "angles"},
    },
    "regression by a rule that learns": {
        "rule": "test_gpu_branches:Learning", "recorded": True, "task": "regression", "network": {"widths": [8]},
        "training": {"loss": "squared_error", "dtype": "float64"},
    },
    "batch norm and dropout": {
        "rule": "dfa",
        "network": {
            "widths": [8, 6], "norm": "batch", "dropout": 0.2, "input_dropout": 0.1, "initialisation": "pre_aligned",
        },
        "training": {"momentum": 0.9},
        "probe": {"mode": "train", "reference_mode": "eval"},
    },
    "layer norm after the activation": {
        "rule": "fa",
        "network": {"widths": [8, 6], "norm": "layer", "order": ["activation", "norm", "dropout", "pool"]},
        "feedback": {"points": [1], "rank": 1},
        "training": {"optimiser": "adam"},
        "probe": {"mode": "eval", "reference_mode": "batch", "chance": "redraw"},
    },
    "activations": {
        "rule": "dfa",
        "network": {"widths": [8, 8, 8, 8, 8, 8], "layers": [
            {"activation": a} for a in ("sigmoid", "gelu", "leaky_relu", "erf", "linear", "relu")
        ]},
        "training": {"loss": "squared_error"},
        "probe": {"reference_mode": "train", "measures": ["signal", "delta", "gradient", "jacobian"]},
    },
    "masks": {
        "rule": "dfa", "network": {"widths": [8, 6], "frozen": 0.3, "signal_masked": 0.2},
        "training": {"momentum": 0.5},
        "probe": {"reference_masks": "independent", "samples": BATCH + 1},
    },
    "convolutions": {
        "rule": "dfa", "shape": IMAGES,
        "network": {**CONVOLUTIONS, "channels": [2], "norm": "batch", "conv_dropout": 0.2, "dropout": 0.1},
        "training": {"update": "norm_matched"},
    },
    "convolutions by fa": {
        "rule": "fa", "shape": IMAGES, "network": {**CONVOLUTIONS, "norm": "layer"},
    },
    "masked convolutions, turned": {
        "rule": "imposed_angle", "shape": IMAGES,
        "network": {**CONVOLUTIONS, "channels": [2], "frozen": 0.3, "signal_masked": 0.2},
        "feedback": {"angle_deg": 30.0},
        "probe": {"reference_masks": "none"},
    },
    "locally connected": {
        "rule": "dfa", "shape": IMAGES,
        "network": {**CONVOLUTIONS, "hidden": [], "kernel": 2, "weight_sharing": False},
        "probe": {"measures": "angles"},
    },
}  # fmt: skip
"""Every rule, stage, optimiser, loss and mode; all measures, unless a case says otherwise."""

READS = {
    # what is recorded
    "evaluate", "_gathered", "Probe.measure", "Recorder._diverged", "Recorder._runs",
    # torch looks up whether a decomposition went well: of feedback once, of masked feedback at every measurement
    "row_space", "masked_ceiling",
    # before the first step
    "prealign",
    # what a rule of the user's own does is looked at, at the first step and after a measurement
    "_same", "Probe._require_unchanged",
}  # fmt: skip
"""Functions that may have the host wait for what they read."""
SENDS = {
    # before the first step
    "Dataset.to", "Network._initialise", "Network._stages_of", "Network._dropout", "Dropout.__init__", "Masks.of",
    "per_member", "prealign", "random_split", "Engine.__init__",
    # feedback: before the first step, and other draws of it while measuring
    "stack",
    # once a constant, once an epoch, once in 64 steps
    "_constant", "_batches", "DropoutUniforms._drawn_keys",
}  # fmt: skip
"""Functions that may have it wait for what they send."""

FAULTS: dict[str, tuple[str, Callable[[Tensor], Tensor]]] = {
    "a factor on the host": ("on cpu and pydev", lambda error: error @ torch.zeros(MEMBERS, OUTPUTS, OUTPUTS)),
    "a summand on the host": ("on cpu and pydev", lambda error: error + torch.zeros(OUTPUTS)),
    "a result on the host": ("on cpu and pydev", lambda error: torch.mul(error, 2.0, out=torch.zeros(error.shape))),
    "an index on the host": ("sends to", lambda error: error + error[:, torch.zeros(1, dtype=torch.int64)]),
    "item": ("reads from", lambda error: error * error.sum().item()),
    "float": ("reads from", lambda error: error * float(error[0, 0, 0])),
    "bool": ("reads from", lambda error: error if error.sum() > 0 else -error),
    "allclose": ("reads from", lambda error: error if torch.allclose(error, -error) else -error),
    "nonzero": ("nonzero", lambda error: error * len(error.nonzero())),
    "a mask as an index": ("nonzero", lambda error: error + error[error > 0].sum()),
    "a round trip": ("reads from", lambda error: error.cpu().to(error.device)),
    "numpy": ("reads from", lambda error: error * np.sum(error.cpu().numpy())),
    "numpy of the device": ("to numpy", lambda error: error * np.sum(error.numpy())),
    "a decomposition": ("reads from", lambda error: error * torch.linalg.svdvals(error)[:, None]),
    "a constant sent anew": ("sends to", lambda error: error * torch.tensor(2.0, device=error.device)),
    "an array sent anew": ("sends to", lambda error: error * torch.from_numpy(np.ones(OUTPUTS)).to(error.device)),
}  # fmt: skip
"""Faults of a rule's signal, and what is said of them."""

BY_NAME = {"choose_device", "default_workers", "device_name", "member_bytes", "most_members", "reproducible"}
"""Functions that tell a GPU by its name. They need none, and are tried below."""
NEED_A_GPU = {"_finish": "it asks the driver for the name of the GPU that a cohort was trained on"}


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    return fake_gpu.in_a_process(__name__.rpartition(".")[2], "on_a_fake_gpu")


@pytest.mark.parametrize("name", CASES)
def test_everything_goes_through_and_a_step_passes_nothing_between_host_and_device(found, name):
    outcome, case = found["cases"][name], CASES[name]
    assert outcome["error"] is None, outcome["trace"]
    assert outcome["found"]["crossed"] == []
    if case.get("recorded"):
        members = case.get("members", MEMBERS)
        layers = members * len(case["network"]["widths"])
        assert outcome["found"]["rows"] == {"runs": members, "checkpoints": 2 * members, "layers": 2 * layers}


def test_a_benchmark_s_step_goes_through(found):
    assert found["benchmark"]["error"] is None, found["benchmark"]["trace"]


def test_every_branch_of_a_gpu_is_taken(found):
    questions, asked = fake_gpu.questions(), {fake_gpu.Question(*each) for each in found["asked"]}
    assert len(questions) > 20
    assert questions - asked == set(), "no case comes by these; add one"


SOURCE = """
def on_gpu(x):
    return x.is_cuda

def in_blocks(*tensors):
    return not any(tensor.is_cuda for tensor in tensors)

def placed(x, y):
    if x.is_cuda and len(y):
        return y
    if not on_gpu(x) or in_blocks(x, y):
        return 1
    elif not in_blocks(x):
        return 2
    return any(
        z.mT
        .is_cuda for z in y
    ) if y else 3
"""


def test_questions_and_the_branches_that_hang_on_them_are_found_in_source():
    answering = fake_gpu.answering_in(SOURCE)
    assert answering == {"on_gpu": True, "in_blocks": False}
    assert fake_gpu.questions_in(SOURCE, answering) == {(3, 0), (6, 0), (9, 10), (11, 0), (13, 14), (17, 0)}


def test_decisions_by_name_are_found_in_source():
    for source, functions in (
        ("class A:\n    def f(self, device):\n        return 1 if device.startswith('cuda') else 2", {"A.f"}),
        ("def f(x):\n    return x.device.type == 'cpu'", {"f"}),
        ("import torch\n\ndef f():\n    torch.cuda.synchronize()", {"f"}),
        ("def f(device='cpu'):\n    return device", set()),
    ):
        assert fake_gpu.deciding_by_name_in(source) == functions


def test_the_host_waits_in_the_functions_named_and_in_no_others(found):
    crossings = [fake_gpu.Crossing(*each) for each in found["crossings"]]
    assert {crossing.function for crossing in crossings if crossing.direction == "read"} == READS
    assert {crossing.function for crossing in crossings if crossing.direction == "sent"} == SENDS


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_in_a_step_is_found(found, name):
    outcome, (text, _) = found["faults"][name], FAULTS[name]
    assert outcome["error"] is not None
    assert text in outcome["trace"].strip().rpartition("\n")[2]


def test_a_step_without_a_fault_goes_through(found):
    assert found["without a fault"]["error"] is None, found["without a fault"]["trace"]


def test_the_cases_have_all_that_happens_on_a_device():
    settings = [_settings(**case) for case in CASES.values()]
    assert {case["rule"] for case in CASES.values()} > set(RULES)
    assert any(one.probe.groups == set(MEASURES) for one in settings)
    assert {one.network.kind for one in settings} == {"mlp", "cnn"}
    for section, model, options in (
        ("network", MLP, ("activation", "norm")),
        ("training", Training, ("optimiser", "update", "loss", "dtype")),
        ("probe", ProbeOptions, ("mode", "reference_mode", "reference_masks", "chance")),
    ):
        for option in options:
            used = {getattr(getattr(one, section), option) for one in settings}
            if section == "network":
                used |= {getattr(layer, option) for one in settings for layer in one.network.layers}
            assert used >= _choices(model.model_fields[option].annotation), option
    for amount in ("dropout", "input_dropout", "conv_dropout", "frozen", "signal_masked"):
        assert any(getattr(one.network, amount, 0.0) > 0 for one in settings), amount
    assert {one.network.weight_sharing for one in settings if isinstance(one.network, CNN)} == {True, False}


def _choices(annotation: Any) -> set[str]:
    """The values of a Literal, or of those in a union."""
    inner = get_args(annotation)
    return set(inner) if get_origin(annotation) is Literal else {value for each in inner for value in _choices(each)}


def test_functions_that_tell_a_gpu_by_its_name_are_known():
    assert fake_gpu.deciding_by_name() == BY_NAME | set(NEED_A_GPU)


def test_auto_takes_a_gpu_where_there_is_one(monkeypatch):
    for there, chosen in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert choose_device("auto") == chosen


def test_a_gpu_has_one_worker_and_keeps_the_host_s_threads(monkeypatch):
    assert default_workers("cuda:1") == 1
    asked: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    with reproducible("cuda:1"):
        assert asked == []
    with reproducible("cpu"):
        assert asked[-1] == 1


def test_products_on_a_gpu_take_the_precision_that_is_asked_for():
    on_gpu, on_cpu = torch.backends.cuda.matmul, torch.backends.mkldnn.matmul
    with reproducible("cuda:1"):
        with multiplying_in("tf32", "cuda:1"):
            assert (on_gpu.fp32_precision, on_cpu.fp32_precision) == ("tf32", "ieee")
        assert on_gpu.fp32_precision == "ieee"


def test_a_gpu_is_called_by_its_own_name(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"the GPU {device}")
    assert device_name.__wrapped__("cuda:1") == "the GPU cuda:1"


def test_a_cohort_on_a_gpu_is_larger_and_its_members_hold_what_all_positions_see():
    flat, local = (_settings(**CASES[name]) for name in ("masks", "locally connected"))
    for settings, shape in ((flat, FLAT), (local, IMAGES)):
        data = DataShape(shape, OUTPUTS, STEPS * BATCH)
        assert most_members(settings, data, "cuda") > most_members(settings, data, "cpu")
        assert member_bytes(settings, data, "cuda") > member_bytes(settings, data, "cpu")


def on_a_fake_gpu() -> dict[str, Any]:
    """All that the tests above look at."""
    gc.disable()  # which takes a tenth of the time
    gpu = fake_gpu.FakeGPU(reads=READS, sends=SENDS)
    with gpu:
        cases = {
            "cases": {name: _outcome(lambda case=case: _train(gpu, **case)) for name, case in CASES.items()},
            "benchmark": _outcome(_benchmark),
            "without a fault": _outcome(lambda: _step()(lambda error: error * torch.ones(()))),
            "faults": {name: _outcome(lambda fault=fault: _step()(fault)) for name, (_, fault) in FAULTS.items()},
        }
    return {**cases, "asked": sorted(gpu.asked), "crossings": sorted(set(gpu.crossings))}


def _outcome(run: Callable[[], Any]) -> dict[str, Any]:
    try:
        return {"error": None, "trace": "", "found": run()}
    except Exception as error:
        told = traceback.TracebackException.from_exception(error)
        ours = [frame for frame in told.stack if not frame.filename.startswith(TORCH)]
        told.stack = traceback.StackSummary.from_list(ours)
        return {"error": type(error).__name__, "trace": "".join(told.format()), "found": None}


def _train(gpu: Any, *, recorded: bool = False, **case: Any) -> dict[str, Any]:
    """What passed between host and device in the second step, which is not measured, and the rows that are written."""
    settings, rule, shape = _settings(**case), case["rule"], case.get("shape", FLAT)
    members = [Member(settings, seed) for seed in range(case.get("members", MEMBERS))]
    dataset = _dataset(case).to(fake_gpu.DEVICE, getattr(torch, settings.training.dtype))
    crossings: list[int] = []

    def count(share: float = 0.0) -> None:
        crossings.append(len(gpu.crossings))

    if recorded:
        runs = tuple(Run(f"run {member.seed}", rule, "", member.seed, settings, {}) for member in members)
        cohort = Cohort("a cohort", rule, runs, DataShape(shape, OUTPUTS, STEPS * BATCH))
        tables = train_cohort(cohort, dataset, device=fake_gpu.DEVICE, progress=count)
        rows = {name: len(table) for name, table in tables.items()}
    else:
        _train_and_measure(members, rule, dataset, count)
        rows = {}
    return {"rows": rows, "crossed": gpu.crossings[crossings[0] : crossings[1]]}


@torch.no_grad()
def _train_and_measure(members: list[Member], rule: str, dataset: Dataset, count: Callable[[], None]) -> None:
    """Two steps and a measurement: a third of the operations of `train_cohort`."""
    network = Network(members, shape=dataset.shape, outputs=OUTPUTS, device=fake_gpu.DEVICE)
    learning, bp = rule_class(rule)(network, members), BP(network, members)
    if members[0].settings.network.initialisation == "pre_aligned":
        prealign(network, bp.measured, members, dataset.train)
    probe = Probe(network, learning, members, *probe_batch(dataset, members[0].settings.probe))
    update = Update(network, learning, bp, members)
    index = torch.arange(BATCH, device=fake_gpu.DEVICE).expand(len(members), BATCH)
    with torch.inference_mode():
        for step in (1, 2):
            forward_pass = network.forward(*gather(dataset.train, index), training_mode(step), watch=True)
            before = update.reference(forward_pass) if step == 2 else None
            update.step(forward_pass)
            count()
        probe.measure(2)
        probe.measure_step(*before)


def _settings(**case: Any) -> Settings:
    probe = {"samples": BATCH, "log_steps": 0, "every_epochs": 0, **case.get("probe", {})}
    training = {"batch_size": BATCH, "epochs": 1, **case.get("training", {})}
    sections = {"network": case["network"], "feedback": case.get("feedback", {}), "training": training, "probe": probe}
    settings = Settings.model_validate(with_tags(sections))
    fewer = settings.probe.model_copy(update={"redraws": 2})  # than a study may ask for: they are all alike
    return settings.model_copy(update={"probe": fewer})


def _dataset(case: dict[str, Any]) -> Dataset:
    task, shape, samples = case.get("task", "classification"), case.get("shape", FLAT), STEPS * BATCH
    targets = torch.zeros(samples, OUTPUTS) if task == "regression" else torch.zeros(samples, dtype=torch.int64)
    split = Split(torch.zeros(samples, *shape), targets)
    return Dataset("nothing", task, shape, OUTPUTS, split, None, split, "")


def _benchmark() -> None:
    engine = Engine(Case((12, 8, OUTPUTS), BATCH, members=MEMBERS, device=fake_gpu.DEVICE, probe={"samples": BATCH}))
    engine.step()


@functools.cache
def _step() -> Callable[[Callable[[Tensor], Tensor]], None]:
    """A step of training under a rule that first does something to the error."""
    settings = _settings(rule="dfa", network={"widths": [8, 6]})
    members = [Member(settings, seed) for seed in range(MEMBERS)]
    network = Network(members, shape=FLAT, outputs=OUTPUTS, device=fake_gpu.DEVICE)
    rule = AtFault(network, members)
    update = Update(network, rule, BP(network, members), members)
    x = torch.zeros(MEMBERS, BATCH, *FLAT, device=fake_gpu.DEVICE)
    targets = torch.zeros(MEMBERS, BATCH, dtype=torch.int64, device=fake_gpu.DEVICE)

    @torch.inference_mode()
    def step(fault: Callable[[Tensor], Tensor]) -> None:
        rule.fault = fault
        update.step(network.forward(x, targets, training_mode(1), watch=True))

    return step


class AtFault(DFA):
    fault: Callable[[Tensor], Tensor]

    def teaching_signal(self, layer: int, forward_pass: Pass, delta_above: Tensor | None) -> Tensor:
        return self.fault(forward_pass.error) @ self.matrices[layer - 1]


class Learning(DFA):
    """A rule that uses all that a rule may."""

    def own_gradients(self, layer: int, forward_pass: Pass, delta: Tensor | None) -> dict[str, Tensor] | None:
        return None if delta is None else {"weight": self.network.weight_gradient(layer, delta, forward_pass)}

    def after_step(self, forward_pass: Pass, step: StepTaken) -> None:
        for matrix, rate in zip(self.matrices, step.rates, strict=False):
            matrix.mul_(1.0 - rate[..., None])

    def state(self) -> dict[str, Tensor]:
        return {f"B{layer}": matrix for layer, matrix in enumerate(self.matrices, start=1)}
