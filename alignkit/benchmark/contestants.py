"""What is timed: alignkit's own step and measurement, and the bare products that any DFA step must make."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from alignkit.benchmark.timing import Steps
from alignkit.data.dataset import Split, gather
from alignkit.measures.probe import Probe
from alignkit.networks.members import Member
from alignkit.networks.network import Network
from alignkit.networks.stages import training_mode
from alignkit.numerics.allocator import keep_freed_memory
from alignkit.numerics.precision import multiplying_in
from alignkit.rules import rule_class
from alignkit.rules.bp import BP
from alignkit.settings.study_options import Settings
from alignkit.settings.training import MatmulPrecision
from alignkit.settings.validation import with_tags
from alignkit.training.evaluation import evaluate
from alignkit.training.memory import DataShape, most_members
from alignkit.training.update import Update

SAMPLES = 2048


@dataclass(frozen=True)
class Case:
    """A network and a batch to train it with. `sizes` of a fully connected one, or `network` in full.

    `members` is the cohort's size; None for the one that a study would have.
    """

    sizes: tuple[int, ...]
    batch: int
    shape: tuple[int, ...] = ()
    network: dict[str, Any] = field(default_factory=dict)
    probe: dict[str, Any] = field(default_factory=dict)
    rule: str = "dfa"
    members: int | None = None
    device: str = "cpu"
    precision: MatmulPrecision = "float32"

    @property
    def label(self) -> str:
        return "-".join(map(str, self.sizes))

    @property
    def data(self) -> DataShape:
        return DataShape(self.shape or self.sizes[:1], self.sizes[-1], SAMPLES)

    @property
    def settings(self) -> Settings:
        widths = {} if self.shape else {"widths": self.sizes[1:-1]}
        training = {"batch_size": self.batch, "lr": 1e-3, "matmul_precision": self.precision}
        sections = {"network": {**widths, **self.network}, "training": training, "probe": self.probe}
        return Settings.model_validate(with_tags(sections))

    @property
    def cohort_size(self) -> int:
        return self.members or most_members(self.settings, self.data, self.device.split(":")[0])


class Engine:
    """A cohort in training, as `train_cohort` trains it."""

    def __init__(self, case: Case) -> None:
        keep_freed_memory()
        settings = case.settings
        members = [Member(settings, seed) for seed in range(case.cohort_size)]
        generator = torch.Generator().manual_seed(0)
        self.case, self.networks = case, len(members)
        self._split = random_split(case.data, SAMPLES, generator, case.device)
        self._index = torch.randint(SAMPLES, (len(members), case.batch), generator=generator).to(case.device)
        with torch.no_grad():
            self.network = Network(members, shape=case.data.shape, outputs=case.data.outputs, device=case.device)
            rule, bp = rule_class(case.rule)(self.network, members), BP(self.network, members)
            self._update = Update(self.network, rule, bp, members)
            samples = settings.probe.samples
            self._probe = Probe(
                self.network, rule, members, self._split.inputs[:samples], self._split.targets[:samples]
            )
        self._step = 0

    @torch.inference_mode()
    def step(self) -> None:
        """One step of training."""
        self._step += 1
        batch, labels = gather(self._split, self._index)
        with multiplying_in(self.case.precision, self.case.device):
            forward_pass = self.network.forward(batch, labels, training_mode(self._step), watch=True)
            assert forward_pass.total is not None
            if not forward_pass.total.is_cuda:
                forward_pass.total.sum().item()  # as the recorder checks it
            self._update.step(forward_pass)

    @torch.inference_mode()
    def measured_step(self) -> None:
        """One step, and all that measuring adds to it: everything of a checkpoint but losses and accuracies."""
        self._step += 1
        batch, labels = gather(self._split, self._index)
        forward_pass = self.network.forward(batch, labels, training_mode(self._step), watch=True)
        before = self._update.reference(forward_pass) if self._probe.needs_step else None
        self._update.step(forward_pass)
        self._probe.measure(self._step)
        if before is not None:
            self._probe.measure_step(*before)

    @torch.inference_mode()
    def evaluate(self) -> None:
        """The losses and accuracies of a checkpoint, on one split of 1,000 samples."""
        evaluate(self.network, self._split, samples=1000)

    def contestant(self, step: Callable[[], None], *, threads: int = 1) -> Steps:
        return Steps(step, self.networks, threads, self.case.device)


def engine_steps(case: Case) -> Steps:
    """alignkit's step, as a contestant of any process."""
    engine = Engine(case)
    return engine.contestant(engine.step)


def random_split(data: DataShape, samples: int, generator: torch.Generator, device: str) -> Split:
    inputs = torch.randn(samples, *data.shape, generator=generator)
    return Split(inputs.to(device), torch.randint(data.outputs, (samples,), generator=generator).to(device))


def bare_products(sizes: Sequence[int], batch: int, *, members: int = 1, device: str = "cpu") -> Callable[[], None]:
    """The matrix products of one DFA step of a fully connected network and nothing else: the machine's limit.

    h W' at every layer, e B at every hidden one, and W -= delta' h: with S the number of weights, 4 N S operations
    and the feedback's. Weights lie in memory as [in, out], which is the faster way.
    """
    weights = [torch.zeros(members, i, o, device=device) for i, o in pairwise(sizes)]
    feedback = [torch.ones(members, sizes[-1], d, device=device) for d in sizes[1:-1]]
    hidden = [torch.ones(members, batch, d, device=device) for d in sizes]
    out = [torch.empty(members, batch, d, device=device) for d in sizes]

    def step() -> None:
        for layer, weight in enumerate(weights):
            torch.bmm(hidden[layer], weight, out=out[layer + 1])
        for layer, matrix in enumerate(feedback, start=1):
            torch.bmm(hidden[-1], matrix, out=out[layer])
        for layer, weight in enumerate(weights):
            weight.baddbmm_(hidden[layer].mT, hidden[layer + 1], alpha=-1e-9)

    return step


def operations(sizes: Sequence[int], batch: int) -> int:
    """Arithmetic operations of `bare_products`, per network."""
    products = 2 * sum(i * o for i, o in pairwise(sizes)) + sizes[-1] * sum(sizes[1:-1])
    return 2 * batch * products


def gathering(case: Case) -> Callable[[], tuple[Tensor, Tensor]]:
    """A batch of random data for a single network, gathered anew each time as training does."""
    generator = torch.Generator().manual_seed(0)
    split = random_split(case.data, SAMPLES, generator, case.device)
    index = torch.randint(SAMPLES, (case.batch,), generator=generator).to(case.device)
    return lambda: (split.inputs.index_select(0, index), split.targets.index_select(0, index))
