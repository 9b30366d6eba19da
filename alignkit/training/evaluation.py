"""Losses and accuracies over a split."""

from __future__ import annotations

import numpy as np
import torch

from alignkit.data.dataset import Split
from alignkit.networks.losses import is_right, sample_losses
from alignkit.networks.network import Network
from alignkit.training.memory import EVALUATION_CHUNK

SPLITS = ("train", "validation", "test")


def evaluate(network: Network, split: Split, *, samples: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean loss, its standard error and the accuracy [E] on a split (its first `samples`; 0: all), in evaluation mode.

    Accuracies are NaN for regression.
    """
    n_members = network.parameters.n_members
    count = min(samples, len(split)) or len(split)
    loss = torch.zeros(n_members, dtype=torch.float64, device=split.inputs.device)
    squares, correct = torch.zeros_like(loss), torch.zeros_like(loss)
    classes = not split.targets.is_floating_point()
    for start in range(0, count, EVALUATION_CHUNK):
        x = split.inputs[start : min(start + EVALUATION_CHUNK, count)]
        wanted = split.targets[start : min(start + EVALUATION_CHUNK, count)]
        output = network.predict(x.expand(n_members, *x.shape))
        wanted = wanted.expand(n_members, *wanted.shape)
        losses = sample_losses(network.loss, output, wanted).double()  # [E, N]
        loss += losses.sum(1)
        squares += losses.square().sum(1)
        if classes:
            correct += is_right(output, wanted).sum(1)
    accuracy = correct / count if classes else torch.full_like(loss, torch.nan)
    mean = loss / count
    error = ((squares / count - mean.square()).clamp_min(0.0) / max(count - 1, 1)).sqrt()
    return mean.cpu().numpy(), error.cpu().numpy(), accuracy.cpu().numpy()
