"""The self-test of the output layer."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from alignkit.measures import angles
from alignkit.networks.forward_pass import Pass
from alignkit.networks.losses import wanted_output
from alignkit.networks.network import Network
from alignkit.numerics.products import matmul


def output_cosine(network: Network, forward_pass: Pass, reference: Pass) -> Tensor:
    """The output-weight gradient that a rule's step uses against autograd's, [E]: 1, or the engine is wrong (or the
    `reference` pass is in another mode)."""
    last, targets = len(network.layers), reference.targets
    with torch.inference_mode(False), torch.enable_grad():
        weight, bias = network.weight(last).detach().requires_grad_(), network.parameters.views[last, "bias"]
        h = _differentiable(reference.inputs[-1])
        output = matmul(weight, h.mT, bias=bias[..., None])  # yᵀ [E, C, N]
        if network.loss == "cross_entropy":
            loss = F.cross_entropy(output, targets, reduction="sum")
        else:
            wanted = _differentiable(wanted_output(forward_pass.output, targets))
            loss = 0.5 * F.mse_loss(output, wanted.mT, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, weight)
    return angles.frobenius_cosine(network.weight_gradient(last, forward_pass.error, forward_pass), gradient)


def _differentiable(values: Tensor) -> Tensor:
    """The values as autograd takes them: those made in inference mode, as a copy."""
    return values.clone() if values.is_inference() else values
