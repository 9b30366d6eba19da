"""The plain loops that a careful researcher would write for one network: the yardsticks of alignkit's speed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alignkit.errors import AlignkitError

Step = Callable[[Tensor, Tensor], None]
"""Trains on a mini-batch: inputs [N, …] and labels, int64 [N]."""


def plain_step(*, sizes: Sequence[int], lr: float, device: torch.device | str, seed: int = 0) -> Step:
    """One DFA step of a fully connected tanh network without autograd: cross-entropy, mean over the batch, SGD.

    Parameters
    ----------
    sizes
        Units of the input, of every hidden layer, and of the output.
    lr
        The learning rate of all layers.
    device
        Where the network lies, and where batches must.
    seed
        Of the weights (PyTorch's default law) and of the feedback, B_l ~ N(0, 1/(C d_l)).

    Returns
    -------
    step(x, labels)
        Forward, feedback and update, for x [N, sizes[0]] and int64 labels [N].

    Examples
    --------
    >>> step = plain_step(sizes=(4, 8, 3), lr=0.1, device="cpu")
    >>> step(torch.ones(2, 4), torch.tensor([0, 2]))
    """
    check_sizes(sizes)
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int, bound: float) -> Tensor:
        return torch.empty(shape).uniform_(-bound, bound, generator=generator).to(device)

    weights = [uniform(o, i, bound=i**-0.5) for i, o in pairwise(sizes)]  # W_l [d_l, d_{l-1}]
    biases = [uniform(o, bound=i**-0.5) for i, o in pairwise(sizes)]  # b_l [d_l]
    feedback = _feedback(sizes[1:-1], sizes[-1], generator, device)  # B_l [C, d_l]
    return partial(dfa_step, weights=weights, biases=biases, feedback=feedback, lr=lr)


@torch.no_grad()
def dfa_step(
    x: Tensor,
    labels: Tensor,
    *,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    feedback: Sequence[Tensor],
    lr: float,
) -> None:
    """The step itself; changes W_l [d_l, d_{l-1}] and b_l [d_l] in place. B_l [C, d_l] for the hidden layers."""
    hidden = [x]  # h_0 [N, d_0]
    for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
        hidden.append(torch.addmm(bias, hidden[-1], weight.T).tanh_())  # h_l [N, d_l]
    error = torch.addmm(biases[-1], hidden[-1], weights[-1].T).softmax(1)  # [N, C]
    error.scatter_add_(1, labels[:, None], error.new_full((len(x), 1), -1.0)).div_(len(x))
    # (e B_l)(1 - h_l^2), in one kernel: [N, d_l]
    deltas = [torch.ops.aten.tanh_backward(error @ b, h) for b, h in zip(feedback, hidden[1:], strict=True)]
    for weight, bias, h, delta in zip(weights, biases, hidden, [*deltas, error], strict=True):
        weight.addmm_(delta.T, h, alpha=-lr)
        bias.sub_(delta.sum(0), alpha=lr)


def plain_cnn_step(*, lr: float, device: torch.device | str, seed: int = 0) -> Step:
    """One DFA step of the convolutional network of Launay, Poli and Krzakala (2019), with feedback everywhere.

    Three 5x5 convolutions (padding 2) of 32, 64 and 64 channels, each followed by tanh and 3x3 max pooling
    of stride 2, then 576-128-10. Every hidden layer is a detached block that learns from its own feedback,
    which enters after the pooling; cross-entropy, mean over the batch, SGD.

    Parameters
    ----------
    lr, device, seed
        As for `plain_step`.

    Returns
    -------
    step(x, labels)
        Forward, feedback and update, for x [N, 3, 32, 32] and int64 labels [N].

    Examples
    --------
    >>> step = plain_cnn_step(lr=0.01, device="cpu")
    >>> step(torch.ones(2, 3, 32, 32), torch.tensor([0, 9]))
    """
    with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()):
        torch.manual_seed(seed)
        blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(i, o, 5, padding=2), nn.Tanh(), nn.MaxPool2d(3, 2))
            for i, o in pairwise((3, 32, 64, 64))
        )
        blocks.append(nn.Sequential(nn.Flatten(), nn.Linear(576, 128), nn.Tanh()))
        output = nn.Linear(128, 10)
    feedback = _feedback((7200, 3136, 576, 128), 10, torch.Generator().manual_seed(seed), device)
    return partial(dfa_cnn_step, blocks=blocks.to(device), output=output.to(device), feedback=feedback, lr=lr)


def dfa_cnn_step(
    x: Tensor, labels: Tensor, *, blocks: nn.ModuleList, output: nn.Module, feedback: Sequence[Tensor], lr: float
) -> None:
    """The step itself; changes the modules' parameters in place. B_l [C, d_l], d_l the size of block l's output."""
    hidden = []  # h_l [N, c, H, W] or [N, d_l], each with the graph of its own block alone
    for block in blocks:
        x = block(x)
        hidden.append(x)
        x = x.detach()
    y = output(x)  # [N, C]
    y.retain_grad()
    F.cross_entropy(y, labels).backward()
    assert y.grad is not None
    signals = [(y.grad @ b).view_as(h) for b, h in zip(feedback, hidden, strict=True)]
    torch.autograd.backward(hidden, signals)
    with torch.no_grad():
        for parameter in (*blocks.parameters(), *output.parameters()):
            assert parameter.grad is not None
            parameter.sub_(parameter.grad, alpha=lr)
            parameter.grad = None


def check_sizes(sizes: Sequence[int]) -> None:
    """Refuse sizes that make no network with a hidden layer."""
    if len(sizes) < 3 or min(sizes) < 1:
        raise AlignkitError(
            "sizes: expected the units of the input, of one or more hidden layers and of the output; "
            f"got {tuple(sizes)}. Give at least three positive numbers, such as (64, 64, 10)"
        )


def _feedback(
    widths: Sequence[int], classes: int, generator: torch.Generator, device: torch.device | str
) -> list[Tensor]:
    return [torch.randn(classes, d, generator=generator).div_(math.sqrt(classes * d)).to(device) for d in widths]
