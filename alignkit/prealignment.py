"""Pre-aligned initialisation: weights that send down what resembles the teaching signal from the start."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from alignkit import streams
from alignkit.data import Split
from alignkit.errors import StudyError
from alignkit.network import Member, Network
from alignkit.rules.base import Rule
from alignkit.rules.bp import BP
from alignkit.tails import Mode

RANK_TOLERANCE = 1e-5
"""Singular values below this share of the largest count as zero: softmax errors sum to zero but for rounding."""


def prealign(network: Network, rule: Rule, members: Sequence[Member], train: Split) -> None:
    """Set W_{l+1} of every member to the least-squares solution of Δ_{l+1} W_{l+1} = T_l, at unit Frobenius norm.

    T_l [N, d_l] are the rule's teaching signals (of BP, its bystander's) and Δ_{l+1} [N, d_{l+1}] the deltas of
    back-propagation, the output errors at the top. It goes from the output layer down, with a fresh batch for each
    layer and the layers above already set; the first layer keeps its weights, and all layers their biases.
    Under DFA, W_{l+1} has a rank of at most the number of outputs (pre-alignment of Launay, Poli and Krzakala 2019).

    Raises `StudyError` where a layer above the first is a convolution, or a layer has no teaching signal.
    """
    settings = members[0].settings
    if any(layer.convolution for layer in network.layers[1:]):
        raise StudyError(
            'network.initialisation: "pre_aligned" sets the weights of fully connected layers; this network has a '
            'convolution above its first layer. Use "pytorch", or kind = "mlp"'
        )
    bp = BP(network, members)
    size = settings.training.batch_size
    orders = [streams.permutation(member.seed_of("order"), "order", count=len(train), step=-1) for member in members]
    order = torch.from_numpy(np.stack(orders)).to(train.inputs.device)
    if size * len(network.hidden_sizes) > len(train):
        raise StudyError(
            f'network.initialisation: "pre_aligned" takes a batch for each of {len(network.hidden_sizes)} layers; got '
            f"{len(train)} training samples and batches of {size}. Use smaller batches"
        )
    for layer in range(len(network.hidden_sizes), 0, -1):
        start = (len(network.hidden_sizes) - layer) * size
        index = order[:, start : start + size]
        x = train.inputs[index.reshape(-1)].view(*index.shape, *train.inputs.shape[1:])
        targets = train.targets[index.reshape(-1)].view(*index.shape, *train.targets.shape[1:])
        passed = network.forward(x, targets, Mode(batch_statistics=True))
        signal = network.backward(passed, rule)[0][layer - 1]
        if signal is None:
            raise StudyError(
                f'network.initialisation: "pre_aligned" needs a teaching signal at every hidden layer; {type(rule)} '
                f"has none at layer {layer}. Use another initialisation for it"
            )
        below = network.backward(passed, bp)[1]
        delta = passed.error if layer == len(below) else below[layer]
        assert delta is not None, "BP always has a signal"
        for member in range(len(members)):
            network.weight(layer + 1)[member] = _aligned_weights(delta[member], signal[member])


def _aligned_weights(delta: Tensor, signal: Tensor) -> Tensor:
    weights = torch.linalg.pinv(delta.double(), rtol=RANK_TOLERANCE) @ signal.double()
    return weights / torch.linalg.vector_norm(weights)
