"""What one step of training does to a cohort's parameters."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from alignkit.networks.forward_pass import Pass
from alignkit.networks.members import Member
from alignkit.networks.network import Network
from alignkit.networks.parameters import Parameters, per_member
from alignkit.rules.base import Rule, StepTaken
from alignkit.rules.bp import BP
from alignkit.training.optimisers import SGD, Adam, match_norms


class Update:
    """What a step does to the parameters, from one pass over its batch."""

    def __init__(self, network: Network, rule: Rule, bp: BP, members: Sequence[Member]) -> None:
        self._network, self._rule, self._bp = network, rule, bp
        training = [member.settings.training for member in members]
        first = training[0]
        mean = 1.0 / first.batch_size
        # rates carry the reduction of each layer's gradient over the batch; gradients are sums
        hidden, output = (
            mean if how == "mean" else 1.0 for how in (first.reduction, first.output_reduction or first.reduction)
        )
        like = network.parameters.storage
        rates = (
            per_member([t.lr for t in training], like),
            per_member([t.lr if t.output_lr is None else t.output_lr for t in training], like),
        )
        self._norm_matched = first.update == "norm_matched"
        self._optimiser: SGD | Adam | None = None
        if first.optimiser == "adam":
            self._optimiser = Adam(network.parameters, rates=rates, scales=(hidden, output))
            of_sums = (rates[0] * hidden, rates[1] * output)
        else:
            rates = of_sums = (rates[0] * hidden, rates[1] * output)
            if first.momentum or self._norm_matched:
                self._optimiser = SGD(network.parameters, rates=rates, momentum=first.momentum)
        self._rates = rates
        self._rates_of_sums = [
            of_sums[network.parameters.layout.of_output((layer, "weight"))]
            for layer in range(1, len(network.layers) + 1)
        ]
        self._gradients = network.parameters.like() if self._optimiser else None

    @cached_property
    def _bp_gradients(self) -> Parameters:
        return self._network.parameters.like()

    def reference(self, forward_pass: Pass) -> tuple[Parameters, Parameters]:
        """The parameters as they are, and the BP gradient of the batch: what a step is compared with."""
        self._network.write_gradients(forward_pass, self._bp, self._bp_gradients)
        return self._network.parameters.copy(), self._bp_gradients

    def step(self, forward_pass: Pass) -> None:
        if self._optimiser is None or self._gradients is None:
            deltas = self._network.descend(forward_pass, self._rule, self._rates)
        else:
            deltas = self._network.write_gradients(forward_pass, self._rule, self._gradients)
            if self._norm_matched:
                self._network.write_gradients(forward_pass, self._bp, self._bp_gradients)
                match_norms(self._gradients, self._bp_gradients)
            self._optimiser.step(self._gradients)
        if self._rule.learns:
            self._rule.after_step(forward_pass, StepTaken(deltas, self._rates_of_sums))
