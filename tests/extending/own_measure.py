"""Measures that are no part of the package: what a user would write beside a study."""

from __future__ import annotations

import torch

from alignkit.columns import Column
from alignkit.measures.measure import Measure
from alignkit.measures.reductions import mean


class Sparsity(Measure):
    """How many activations are zero: a number of the network alone."""

    columns = (
        Column("zero_fraction", "fraction of the activations h_l that are zero", "fraction of silent units", digits=4),
    )
    needs = ("network",)

    def of_network(self, forward_pass):
        return [{"zero_fraction": (h == 0).flatten(1).double().mean(1)} for h in forward_pass.hidden]


class SignAgreement(Measure):
    """How many entries of the signal have the sign of back-propagation's: a number of each sample."""

    columns = (
        Column("sign_agreement", "mean over samples of the share of signs that agree", better="higher"),
        Column("sign_worst", "the same of the worst sample"),
        Column("turn_deg", "mean angle to the BP signal", "turn of the signal", unit="°", better="lower"),
    )
    needs = ("signals", "deltas")

    def of_signals(self, signals):
        agree = (signals.t.vectors.sign() == signals.g.vectors.sign()).double().mean(-1)
        return {"agree": agree, "cosine": 2 * agree}  # a name that a measure of alignkit's has too

    def of_deltas(self, deltas):
        return {"turn": deltas.own.angle_deg(deltas.reference)}

    @classmethod
    def reduce(cls, found):
        assert (found["cosine"] == 2 * found["agree"]).all()
        return {
            "sign_agreement": found["agree"].mean(-1),
            "sign_worst": found["agree"].min(-1),
            "turn_deg": mean(found["turn"]),  # those of silent samples left out
        }


class Moved(Measure):
    """How far the last step moved the largest weight."""

    columns = (Column("largest_move", "the largest change of a weight in the last step"),)
    needs = ("step",)

    def of_step(self, step):
        after = self.subject.network.parameters
        layers = range(1, len(self.subject.network.hidden_sizes) + 1)
        moves = [after.blocks[layer, "weight"] - step.before.blocks[layer, "weight"] for layer in layers]
        return [{"largest_move": move.flatten(1).abs().amax(1)} for move in moves]


class Curvature(Sparsity):
    """One that differentiates: the slope of |h_1|² along the inputs."""

    columns = (Column("slope", "the length of the slope of |x|^2"),)

    def of_network(self, forward_pass):
        with torch.enable_grad():
            x = forward_pass.inputs[0].detach().clone().requires_grad_()
            (slope,) = torch.autograd.grad(x.square().sum(), x)
        return [{"slope": slope.flatten(2).norm(dim=2)} for _ in forward_pass.hidden]


class Changing(Sparsity):
    """Wrong: it changes the network."""

    def of_network(self, forward_pass):
        self.subject.network.weight(1).mul_(1.5)
        return super().of_network(forward_pass)


class Misshapen(Sparsity):
    def of_network(self, forward_pass):
        return [{"zero_fraction": h} for h in forward_pass.hidden]


class Short(Sparsity):
    def of_network(self, forward_pass):
        return super().of_network(forward_pass)[:1]


class Unnamed(Sparsity):
    def of_network(self, forward_pass):
        return [{"other": h.flatten(1).mean(1)} for h in forward_pass.hidden]


class Failing(Sparsity):
    def of_network(self, forward_pass):
        return 1 / 0


class Taken(Sparsity):
    columns = (Column("signal_cosine", "a name that alignkit has"),)


class Undeclared(Sparsity):
    columns = ()


class Needless(Measure):
    columns = Sparsity.columns


class Lacking(Measure):
    columns = Sparsity.columns
    needs = ("deltas",)


class BadDigits(Sparsity):
    columns = (Column("zero_fraction", "a fraction", digits=-1),)


class NoMeasure:
    columns = Sparsity.columns
