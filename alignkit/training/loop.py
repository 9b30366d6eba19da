"""The training loop of a cohort, and the records that it leaves."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from alignkit.data.dataset import Dataset, Split, gather
from alignkit.measures.probe import Probe
from alignkit.measures.schedule import schedule
from alignkit.networks.members import Member
from alignkit.networks.network import Network
from alignkit.networks.stages import training_mode
from alignkit.numerics import streams
from alignkit.numerics.precision import multiplying_in
from alignkit.rules import rule_class
from alignkit.rules.bp import BP
from alignkit.settings.probe import ProbeOptions
from alignkit.settings.rules import RULES
from alignkit.training.cohorts import Cohort
from alignkit.training.prealignment import prealign
from alignkit.training.recorder import Recorder
from alignkit.training.rule_checks import check_rule
from alignkit.training.update import Update

Progress = Callable[[float], None]


@torch.no_grad()
def train_cohort(
    cohort: Cohort, dataset: Dataset, *, device: torch.device | str = "cpu", progress: Progress | None = None
) -> dict[str, pd.DataFrame]:
    """Train a cohort's runs together and return their tables: `runs`, `checkpoints`, `layers`.

    `dataset` lies on `device`, in the type of the study's training. `progress` is called with the
    fraction that is done, and may raise to stop.
    """
    settings = cohort.settings
    training = settings.training
    members = [Member(run.settings, run.seed) for run in cohort.runs]
    network = Network(members, shape=dataset.shape, outputs=dataset.outputs, device=device)
    rule = rule_class(cohort.rule)(network, members)
    bp = BP(network, members)
    if settings.network.initialisation == "pre_aligned":
        prealign(network, bp.measured, members, dataset.train)
    x, targets = probe_batch(dataset, settings.probe)  # [N, *shape], [N] or [N, C]
    probe = Probe(network, rule, members, x, targets)
    update = Update(network, rule, bp, members)
    checkpoints = schedule(settings.probe, steps_per_epoch=cohort.steps_per_epoch, epochs=training.epochs)
    watched = frozenset(checkpoints)
    recorder = Recorder(
        cohort, network, rule, probe, dataset, signal="teaching" if rule.measured is rule else "bystander"
    )
    # the quickest, but for a rule or a measure of the user's own, which may differentiate
    own = cohort.rule not in RULES or settings.probe.own_measures
    undifferentiated = torch.no_grad if own else torch.inference_mode
    with undifferentiated():
        if 0 in watched:
            recorder.checkpoint(0, None)

        batches = _batches(members, len(dataset.train), training.batch_size, network.parameters.storage.device)
        for step in range(1, cohort.steps + 1):
            batch, labels = gather(dataset.train, next(batches))  # [E, N, *shape], [E, N] or [E, N, C]
            with multiplying_in(training.matmul_precision, str(device)):
                forward_pass = network.forward(batch, labels, training_mode(step), watch=True)
            recorder.check(step - 1, forward_pass)
            measured = probe.needs_step and step in watched
            before = update.reference(forward_pass) if measured else None
            if step == 1 and cohort.rule not in RULES:
                check_rule(network, rule, forward_pass)
            with multiplying_in(training.matmul_precision, str(device)):
                update.step(forward_pass)
            del batch, forward_pass  # measuring needs the memory
            if step in watched:
                recorder.checkpoint(step, None if before is None else probe.measure_step(*before))
                del before  # before the next one is made
            if progress is not None:
                progress(step / cohort.steps)
    return recorder.tables()


def probe_batch(dataset: Dataset, options: ProbeOptions) -> tuple[Tensor, Tensor]:
    """The probe's samples, the same for every run. Splits come shuffled: draw k is their k-th piece."""
    split: Split = getattr(dataset, options.split)
    chosen = slice(options.draw * options.samples, (options.draw + 1) * options.samples)
    return split.inputs[chosen], split.targets[chosen]


def _batches(members: list[Member], samples: int, batch_size: int, device: torch.device) -> Iterator[Tensor]:
    """Each member's batches of sample indices [E, N], epoch after epoch, the last partial one dropped."""
    seeds = [member.seed_of("order") for member in members]
    epoch = 0
    while True:
        orders = {seed: streams.permutation(seed, "order", count=samples, step=epoch) for seed in set(seeds)}
        order = torch.from_numpy(np.stack([orders[seed] for seed in seeds])).to(device)  # [E, samples]
        for start in range(0, samples - batch_size + 1, batch_size):
            yield order[:, start : start + batch_size]
        epoch += 1
