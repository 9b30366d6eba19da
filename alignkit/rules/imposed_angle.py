"""Back-propagation turned by a chosen angle: the intervention that observed alignment cannot replace."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from alignkit.errors import StudyError
from alignkit.networks.forward_pass import Pass
from alignkit.networks.members import Member
from alignkit.numerics import streams
from alignkit.numerics.kinds import Float
from alignkit.numerics.products import matmul
from alignkit.numerics.streams import orthogonal
from alignkit.numerics.tensors import Delta, Signal
from alignkit.rules.base import Rule, TaughtNetwork
from alignkit.rules.feedback import stack

Rotation = Float[Tensor, "E d d"]


class ImposedAngle(Rule):
    """delta~_l = delta_l (cos θ I + sin θ J_l): the true delta at z_l, turned by θ = `feedback.angle_deg`.

    J_l is fixed, orthogonal and skew (J² = -I), drawn once per member and layer from the `feedback`
    stream. So delta_l J_l is as long as delta_l and at a right angle to it, whatever delta_l is, and the
    turned delta keeps its length at exactly θ. The same holds for the weight gradient, whose rows mix as
    R' G does (R = cos θ I + sin θ J): <R' G, G> = cos θ |G|², since <J' G, G> = 0, and R is orthogonal.
    That needs one J for all samples and steps; a fresh direction each time would fix no angle of the
    batch's gradient. After a convolution J mixes channels, alike at every position: I ⊗ J is orthogonal
    and skew as well, and the kernel's gradient mixes its rows in the same way.

    What goes down to the next layer is the true delta, so every hidden layer is at the same angle to the
    gradient of the network as it is. `teaching_signal` is therefore g_l itself and its angle is 0: the
    imposed one shows in `delta_cosine` and `gradient_cosine`. The output layer learns by its true
    gradient, and the gain and shift of a norm layer, which are stages after z_l, by theirs.

    The angle is that of the update direction handed to the optimiser: plain SGD keeps it in every step,
    momentum mixes steps, and Adam's rescaling of single weights changes it. At 0° this is
    back-propagation; at 180° the hidden layers climb the loss.

    `rotations[l - 1]` is R_l of all members, [E, d, d], with d the units or channels of z_l. Raises
    `StudyError` where d is odd: no odd-dimensional J is orthogonal and skew.
    """

    linear_in_error = True
    makes_its_signals = True

    def __init__(self, network: TaughtNetwork, members: Sequence[Member]) -> None:
        super().__init__(network, members)
        self.rotations = [self._rotation(layer) for layer in range(1, len(network.layers))]

    def teaching_signal(self, layer: int, forward_pass: Pass, delta_above: Delta | None) -> Signal | None:
        return None if delta_above is None else self.network.transport(layer + 1, delta_above)

    def applied_delta(self, layer: int, delta: Delta) -> Delta:
        rotation = self.rotations[layer - 1]
        if delta.dim() == 3:
            return matmul(delta, rotation)  # [E, N, d] @ [E, d, d]
        channels = delta.flatten(3).transpose(2, 3).flatten(1, 2)  # [E, N H W, c]
        turned = matmul(channels, rotation).view(*delta.shape[:2], -1, delta.shape[2])
        return turned.transpose(2, 3).reshape(delta.shape)

    def _rotation(self, layer: int) -> Rotation:
        shape = self.network.layers[layer - 1]
        size = shape.channels
        if size % 2:
            raise StudyError(
                f"imposed_angle: expected an even number of {'channels' if shape.convolution else 'units'} in every "
                f"hidden layer (only then is there a J with J² = -I); {shape.name} has {size}. Add or drop one"
            )
        rotations = []
        for member in self.members:
            angle = math.radians(member.settings.feedback.angle_deg)
            quarter_turn = skew_orthogonal(size, seed=member.seed_of("feedback"), layer=layer)
            rotations.append(math.cos(angle) * np.eye(size) + math.sin(angle) * quarter_turn)
        return stack(rotations, like=self.network.like)


def skew_orthogonal(size: int, *, seed: int, layer: int = 0) -> np.ndarray:
    """A random J with J' = -J and J² = -I, float64 [size, size], `size` even: a turn by 90° in size/2 planes.

    J = Q K Q', with K the turn of the coordinate planes (1, 2), (3, 4), … and Q uniform over the
    orthogonal matrices, so that no direction is preferred.
    """
    q = orthogonal(streams.gaussian(seed, "feedback", shape=(size, size), layer=layer))
    half = q[:, 0::2] @ q[:, 1::2].T
    return half - half.T  # skew to the bit
