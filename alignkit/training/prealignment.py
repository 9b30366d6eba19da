"""Pre-aligned initialisation: weights that send down what resembles the teaching signal from the start."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from alignkit.data.dataset import Split, gather
from alignkit.errors import StudyError
from alignkit.networks.members import Member
from alignkit.networks.network import Network
from alignkit.networks.shapes import LayerShape
from alignkit.networks.stages import Mode
from alignkit.numerics import streams
from alignkit.rules.base import Rule
from alignkit.rules.bp import BP
from alignkit.settings.study_options import Settings

RANK_TOLERANCE = 1e-5
"""Singular values below this share of the largest count as zero: softmax errors sum to zero but for rounding."""


def check_prealignment(settings: Settings, layers: Sequence[LayerShape], train_samples: int) -> None:
    """Raise `StudyError` where weights cannot be pre-aligned: of convolutions above the first layer, or where the
    training samples do not make a batch for each hidden layer."""
    if settings.network.initialisation != "pre_aligned":
        return
    if not all(layer.dense for layer in layers[1:]):
        raise StudyError(
            'network.initialisation: "pre_aligned" sets the weights of fully connected layers; this network has a '
            'convolution above its first layer. Use "pytorch", or kind = "mlp"'
        )
    hidden, size = len(layers) - 1, settings.training.batch_size
    if size * hidden > train_samples:
        raise StudyError(
            f'network.initialisation: "pre_aligned" takes a batch for each of {hidden} layers; got {train_samples} '
            f"training samples and batches of {size}. Use smaller batches"
        )


def prealign(network: Network, rule: Rule, members: Sequence[Member], train: Split) -> None:
    """Set W_{l+1} of every member to the least-squares solution of Δ_{l+1} W_{l+1} = T_l, at unit Frobenius norm.

    T_l [N, d_l] are the rule's teaching signals and Δ_{l+1} [N, d_{l+1}] the deltas of back-propagation, the output
    errors at the top. It goes from the output layer down, with a fresh batch for each layer and the layers above
    already set; the first layer keeps its weights, and all layers their biases. Under DFA, W_{l+1} has a rank of at
    most the number of outputs (pre-alignment of Launay, Poli and Krzakala 2019). Whichever rule trains, a study takes
    DFA's signals, so that the runs of a pair start from the same weights.

    Raises `StudyError` where `check_prealignment` does, or where all of a layer's signal is masked.
    """
    settings = members[0].settings
    check_prealignment(settings, network.layers, len(train))
    bp = BP(network, members)
    size = settings.training.batch_size
    orders = [streams.permutation(member.seed_of("order"), "order", count=len(train), step=-1) for member in members]
    order = torch.from_numpy(np.stack(orders)).to(train.inputs.device)
    for layer in range(len(network.hidden_sizes), 0, -1):
        start = (len(network.hidden_sizes) - layer) * size
        index = order[:, start : start + size]
        forward_pass = network.forward(*gather(train, index), Mode(batch_statistics=True))
        signal = network.backward(forward_pass, rule)[0][layer - 1]
        below = network.backward(forward_pass, bp)[1]
        delta = forward_pass.error if layer == len(below) else below[layer]
        assert signal is not None and delta is not None, "DFA and BP always have a signal"
        for member in range(len(members)):
            weights = torch.linalg.pinv(delta[member].double(), rtol=RANK_TOLERANCE) @ signal[member].double()
            length = torch.linalg.vector_norm(weights)
            if not length > 0:
                raise StudyError(
                    f'network.initialisation: "pre_aligned" needs a teaching signal at every hidden layer; seed '
                    f"{members[member].seed} has none at layer {layer}, where all of it is masked. Mask less of it"
                )
            network.weight(layer + 1)[member] = weights / length
