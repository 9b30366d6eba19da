"""Rules that are no part of the package: what a user would write beside a study."""

from __future__ import annotations

from typing import Literal

import torch

from alignkit.numerics import streams
from alignkit.rules.base import Rule
from alignkit.rules.fa import FA
from alignkit.settings.types import Probability, Section


class SignSymmetry(Rule):
    """FA's way back with sign(W) (Liao et al. 2016, uSF) or |M| sign(W), M redrawn at each step (brSF)."""

    display_name = "sign-symmetry"
    colour = "#117733"
    linear_in_error = True
    makes_its_signals = True

    class Options(Section):
        magnitudes: Literal["uniform", "redrawn"] = "uniform"

    def teaching_signal(self, layer, forward_pass, delta_above):
        if delta_above is None:
            return None
        weight = self.network.weight(layer + 1)
        feedback = weight.sign()
        if self.options.magnitudes == "redrawn":
            drawn = [
                streams.gaussian(m.seed_of("feedback"), "feedback", shape=tuple(weight.shape[1:]), layer=layer,
                                 step=int(forward_pass.step))
                for m in self.members
            ]  # fmt: skip
            feedback = feedback * torch.stack([torch.from_numpy(one) for one in drawn]).abs().to(weight)
        scale = weight[0].flatten(1).shape[1] ** -0.5
        return self.network.transport(layer + 1, delta_above, weight=scale * feedback)


class KolenPollack(FA):
    """FA whose feedback moves as the weights do; both decay (Akrout et al. 2019, section 4)."""

    display_name = "Kolen-Pollack"

    class Options(Section):
        decay: Probability = 0.0

    def after_step(self, forward_pass, step):
        for layer, feedback in enumerate(self.matrices, start=2):
            delta, weight = step.deltas[layer - 1], self.network.weight(layer)
            if delta is not None:
                gradient = self.network.weight_gradient(layer, delta, forward_pass)
                feedback.sub_(gradient * step.rates[layer - 1].view(-1, *(1 for _ in gradient.shape[1:])))
            for moved in (weight, feedback):
                moved.mul_(1.0 - self.options.decay)

    def state(self):
        return {f"B{layer}": matrix for layer, matrix in enumerate(self.matrices, start=2)}


class LocalLoss(Rule):
    """Each layer teaches itself (Nøkland and Eidnes 2019): a prediction loss at h_l, from a head that learns, and a
    similarity loss at z_l, which is no teaching signal and therefore changes the update itself."""

    class Options(Section):
        similarity: Probability = 0.5

    def __init__(self, network, members):
        super().__init__(network, members)
        shapes = [(network.outputs, size) for size in network.hidden_sizes]
        self.heads = [
            torch.stack([
                torch.from_numpy(streams.gaussian(m.seed_of("feedback"), "feedback", shape=shape, layer=layer))
                for m in members
            ]).to(network.like) / shape[1] ** 0.5
            for layer, shape in enumerate(shapes, start=1)
        ]  # fmt: skip

    def _head_error(self, layer, forward_pass):
        scores = forward_pass.hidden[layer - 1] @ self.heads[layer - 1].mT  # [E, N, C]
        return scores.softmax(-1) - torch.nn.functional.one_hot(forward_pass.targets, scores.shape[-1])

    def teaching_signal(self, layer, forward_pass, delta_above):
        return self._head_error(layer, forward_pass) @ self.heads[layer - 1]

    def own_gradients(self, layer, forward_pass, delta):
        with torch.enable_grad():
            z = (forward_pass.inputs[layer - 1] @ self.network.weight(layer).mT).detach().requires_grad_()
            centred = z - z.mean(1, keepdim=True)
            classes = torch.nn.functional.one_hot(forward_pass.targets).to(z)
            same = classes @ classes.mT
            loss = (torch.tanh(centred @ centred.mT / z.shape[-1]) - same).square().mean((1, 2)).sum()
            (at_z,) = torch.autograd.grad(loss, z)
        whole = (1 - self.options.similarity) * delta + self.options.similarity * at_z
        return {"weight": self.network.weight_gradient(layer, whole, forward_pass), "bias": whole.sum(1)}

    def after_step(self, forward_pass, step):
        for layer, head in enumerate(self.heads, start=1):
            gradient = self._head_error(layer, forward_pass).mT @ forward_pass.hidden[layer - 1]
            head.sub_(gradient * step.rates[layer - 1][..., None])

    def state(self):
        return {f"head{layer}": head for layer, head in enumerate(self.heads, start=1)}
