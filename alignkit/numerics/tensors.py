"""The tensors that are handed from room to room, by their axes: see `kinds`.

E counts the members of a cohort, N samples, d units, C outputs of the network, c channels. What starts with * may be
several axes: z is [d], or [c, H, W] of a convolution.
"""

from torch import Tensor

from alignkit.numerics.kinds import Float, Int

PerMember = Float[Tensor, "E"]
PerSample = Float[Tensor, "E N"]
Inputs = Float[Tensor, "E N *shape"]
Signal = Float[Tensor, "E N d"]
"""What teaches a hidden layer, and the layer's output h_l."""
Delta = Float[Tensor, "E N *z"]
"""A signal at a weight op's output z_l."""
Output = Float[Tensor, "E N C"]
"""y, and the error there."""
Classes = Int[Tensor, "E N"]
Targets = Classes | Output
Weight = Float[Tensor, "E out *in"]
Rate = Float[Tensor, "E 1"]
Vectors = Float[Tensor, "*batch d"]
Numbers = Float[Tensor, "*batch"]
"""One for each of `Vectors`."""
Broadcast = Float[Tensor, "*#batch d"]
"""Vectors that are taken with others, each with its own or one with all."""
