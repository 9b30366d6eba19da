"""Losses of single samples, and their gradients at the output: `training.loss` of a study."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from alignkit.numerics.kinds import Bool
from alignkit.numerics.products import constant
from alignkit.numerics.tensors import Classes, Output, PerSample, Targets

Right = Bool[Tensor, "E N"]


def output_error(loss: str, output: Output, targets: Targets) -> Output:
    """The gradient of each sample's loss at the output, [E, N, C]: of the cross-entropy of the softmax, or of
    half the squared distance to the targets (one-hot for classes)."""
    if loss == "squared_error":
        return output - wanted_output(output, targets)
    error = torch.softmax(output.mT, 1)  # [E, C, N]: samples last, as they lie in memory
    return error.scatter_add_(1, targets[:, None], constant(-1.0, error).expand_as(targets[:, None])).mT


def sample_losses(loss: str, output: Output, targets: Targets) -> PerSample:
    """The loss of each sample, [E, N], of which `output_error` is the gradient."""
    if loss == "squared_error":
        return 0.5 * (output - wanted_output(output, targets)).square().sum(-1)
    return -F.log_softmax(output.mT, dim=1).gather(1, targets[:, None])[:, 0]


def is_right(output: Output, targets: Classes) -> Right:
    """Whether each sample's largest output is its class's, bool [E, N]; of equal ones the first counts."""
    if not output.is_cuda:  # a GPU need not wait to know
        values = output.mT  # [E, C, N], as they lie in memory: argmax takes a hundred times as long as amax there
        largest = values.amax(1, keepdim=True)  # [E, 1, N]
        if ((values == largest).sum(1) == 1).all():  # none are equal, and none is NaN
            return (values.gather(1, targets[:, None]) == largest)[:, 0]
    return output.argmax(-1) == targets


def wanted_output(output: Output, targets: Targets) -> Output:
    """The targets as outputs, [E, N, C]: one-hot for classes, int64 [E, N]."""
    classes = not targets.is_floating_point()
    return F.one_hot(targets, output.shape[-1]).to(output.dtype) if classes else targets
