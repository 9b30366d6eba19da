"""Direct feedback alignment (Nøkland 2016): the error reaches every layer through a fixed matrix."""

from __future__ import annotations

from collections.abc import Sequence

from alignkit.networks.forward_pass import Pass
from alignkit.networks.members import Member
from alignkit.numerics.products import matmul
from alignkit.numerics.tensors import Delta, Signal
from alignkit.rules.base import Rule, TaughtNetwork
from alignkit.rules.feedback import Matrices, Projection, dfa_matrix, stack


class DFA(Rule):
    """t_l = e B_l, with B_l [C, d_l] fixed. `matrices[l - 1]` is B_l of all members, [E, C, d_l]."""

    linear_in_error = True
    makes_its_signals = True

    def __init__(self, network: TaughtNetwork, members: Sequence[Member]) -> None:
        super().__init__(network, members)
        self.matrices = [self._draw(layer, 0) for layer in range(1, len(network.hidden_sizes) + 1)]

    def teaching_signal(self, layer: int, forward_pass: Pass, delta_above: Delta | None) -> Signal:
        return matmul(forward_pass.error, self.matrices[layer - 1])  # [E, N, C] @ [E, C, d_l]

    def projection(self, layer: int) -> Projection:
        return Projection(self.matrices[layer - 1], from_error=True)

    def redrawn_signal(self, layer: int, forward_pass: Pass, delta_above: Delta | None, *, draw: int) -> Signal:
        return matmul(forward_pass.error, self._draw(layer, draw))

    def _draw(self, layer: int, draw: int) -> Matrices:
        sizes, outputs = self.network.hidden_sizes, self.network.outputs
        matrices = [
            dfa_matrix(
                m.settings.feedback, outputs=outputs, sizes=sizes, layer=layer, seed=m.seed_of("feedback"), step=draw
            )
            for m in self.members
        ]
        return stack(matrices, like=self.network.like)
