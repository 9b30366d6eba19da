"""How much memory a member takes, and how many members a cohort may have."""

from __future__ import annotations

import math
from dataclasses import dataclass

from alignkit.networks.parameters import Layout
from alignkit.networks.shapes import LayerShape, condenses, layer_shapes, parameter_shapes, resolve_options
from alignkit.networks.stages import ACTIVATIONS
from alignkit.rules import rule_class
from alignkit.settings.rules import RULES
from alignkit.settings.study_options import Settings

MOST_MEMBERS = {"cpu": 32, "cuda": 128}
MEMORY_BUDGET = {"cpu": 2 * 2**30, "cuda": 16 * 2**30}
"""Bytes that one cohort may take in all."""
CACHE_BUDGET = 16 * 2**20
"""Bytes that a step of a cohort may go through on a CPU: about one core's share of its last cache. Larger cohorts of
wide layers are no faster: what one operation leaves, the next must fetch from memory."""
EVALUATION_CHUNK = 256
"""Samples that are evaluated at a time: about as many as a batch holds, so that memory is not decided there."""


@dataclass(frozen=True)
class DataShape:
    """What cohorts need to know of a dataset."""

    shape: tuple[int, ...]
    outputs: int
    train_samples: int


def member_bytes(settings: Settings, data: DataShape, device: str) -> int:
    """Memory that one member takes on a kind of device, "cpu" or "cuda", at most, from a model of what the engine holds
    at a time."""
    layers = layer_shapes(settings, data.shape, data.outputs)
    training, probe, gpu = settings.training, settings.probe, device == "cuda"
    number = 8 if training.dtype == "float64" else 4
    # what each position sees, worked out anew on every pass, a member at a time; on a CPU only for a few rows of them
    locally = [layer for layer in layers if layer.local and gpu]
    windows = max((number * layer.positions * math.prod(layer.weight[1:]) for layer in locally), default=0)
    parameters = number * Layout.of(parameter_shapes(layers), output_layer=len(layers)).size
    masks = number * sum(_mask_elements(settings, index, layer) for index, layer in enumerate(layers[:-1]))
    hidden = layers[:-1]
    # FA keeps a matrix for every weight, DFA only [C, d_l] a layer, an imposed angle one [d, d] a layer (d its
    # units or channels): the largest is reckoned with
    feedback = number * max(
        sum(math.prod(layer.weight) for layer in layers[1:]),
        sum(data.outputs * layer.size for layer in hidden),
        sum(layer.channels**2 for layer in hidden),
    )
    adam = training.optimiser == "adam"
    stores_gradients = adam or training.momentum > 0 or training.update == "norm_matched"
    held = 1 + stores_gradients + (2 if adam else training.momentum > 0) + (training.update == "norm_matched")
    compares_steps = "step" in probe.groups
    held += compares_steps and training.update != "norm_matched"  # the batch's BP gradient
    moving = compares_steps + stores_gradients * (4 if adam else 0)  # the parameters before it; temporaries
    kept, dropping = (
        [
            _pass_bytes(layer, number, dropping=dropping, channels_last=not gpu) + windows * (layer is layers[0])
            for layer in layers
        ]
        for dropping in (False, True)
    )
    inputs = number * math.prod(data.shape)
    widths = [_walked(layer) for layer in hidden]
    signals = sum(map(_units, hidden)) + max(widths)
    trained = training.batch_size * (inputs + sum(dropping) + number * signals) + moving * parameters
    # one layer of two walks, with the deltas above it, and vectors in float64: on a CPU only one, of which more than
    # inner products are taken, and what comes of it (numerics/inner_products.py); scaled copies of all, if float64
    wide_signals = 5 if gpu else (2 if number == 4 else 4) * bool({"ceiling", "chance"} & set(probe.groups))
    if "signal" in probe.groups:  # both signals less their means, and what their angles take
        wide_signals = wide_signals + 4 if gpu else max(wide_signals, 1 if number == 4 else 4)
    wide = max(max(3 * gpu * _units(layer), wide_signals * layer.size) for layer in hidden)
    gram = "rank" in probe.groups and probe.samples <= max(layer.size for layer in layers)
    vectors = probe.samples * 8 * (wide + 2 * gram * probe.samples)
    matrices = [math.prod(layer.weight) for layer in hidden]
    if condenses(hidden[0], probe.samples):
        matrices[0] = hidden[0].weight[0] * probe.samples
    # two gradients; in float64, and scaled, where products are not taken block by block
    compared = (8 if gpu else 2 if number == 4 else 5) * number * max(matrices)
    modes = [[mode] if probe.reference_mode is None else [mode, probe.reference_mode] for mode in probe.every_mode]
    forward = max(sum(sum(dropping if mode == "train" else kept) for mode in each) for each in modes)
    walks = 2 * number * max(width + _units(above) for width, above in zip(widths, layers[1:], strict=True))
    taken = max(vectors, compared * ("gradient" in probe.groups))
    if "stability" in probe.groups:  # before the signals: two half batches beside the whole
        taken = max(taken, probe.samples * forward + compared)
    probed = probe.samples * (forward + walks) + taken + compares_steps * parameters
    stepped = parameters + 6 * gpu * number * max(math.prod(layer.weight) for layer in hidden) if compares_steps else 0
    evaluated = min(EVALUATION_CHUNK, data.train_samples) * max(
        number * math.prod(layer.input) + bytes_ for layer, bytes_ in zip(layers, kept, strict=True)
    )
    return int(held * parameters + feedback + masks + max(trained, probed, stepped, evaluated))


def _mask_elements(settings: Settings, index: int, layer: LayerShape) -> int:
    """How many elements the masks of a hidden layer have, and what they are laid on."""
    options = resolve_options(settings, index, convolution=layer.convolution)
    weights = 2 * math.prod(layer.weight) if options.frozen else 0
    signals = settings.training.batch_size * layer.size if options.signal_masked else 0
    independent = settings.probe.reference_masks == "independent"
    return weights + (1 + independent) * signals


def _pass_bytes(layer: LayerShape, number: int, *, dropping: bool, channels_last: bool) -> int:
    """What a forward pass keeps of one sample at one layer, with dropout or without: what each stage makes
    of z, and of images that lie channels last, the vector as well."""
    units, options = _units(layer), layer.options
    if options is None or options.activation is None:
        return 3 * number * units
    stages = 1 + ACTIVATIONS[options.activation].needs_input + (options.norm != "none")
    stages += (1 if layer.convolution else 2) * bool(dropping and options.dropout)  # its mask, unless of channels
    pooled = (number + 8) * layer.size if layer.pool else 0  # values, and the indices that they came from
    return number * (units * stages + layer.size * (layer.convolution and channels_last)) + pooled


def _walked(layer: LayerShape) -> int:
    """Elements of a signal and its delta, per sample: one of the two where the activation is pulled back in place."""
    options = layer.options
    assert options is not None and options.activation is not None
    in_place = ACTIVATIONS[options.activation].pull_back_in_place is not None
    alone = options.norm == "none" and layer.pool is None
    return _units(layer) if in_place and alone else layer.size + _units(layer)


def _units(layer: LayerShape) -> int:
    """Elements of z per sample."""
    return layer.channels * layer.positions


def _working_set(settings: Settings, data: DataShape) -> int:
    """Bytes that one member's step goes through over and over: weights, and a batch at every layer."""
    layers = layer_shapes(settings, data.shape, data.outputs)
    number = 8 if settings.training.dtype == "float64" else 4
    weights = sum(math.prod(layer.weight) for layer in layers)
    return number * (weights + settings.training.batch_size * sum(4 * _units(layer) for layer in layers))


def kept_bytes(rule: str, settings: Settings, data: DataShape) -> int:
    """What a rule of the user's own keeps of one member beside feedback matrices."""
    if rule in RULES:
        return 0
    number = 8 if settings.training.dtype == "float64" else 4
    layers = layer_shapes(settings, data.shape, data.outputs)
    return number * int(rule_class(rule).kept_elements(layers, data.outputs))


def most_members(settings: Settings, data: DataShape, device: str, *, rule: str = "dfa") -> int:
    """How many such members a cohort may have on a kind of device, "cpu" or "cuda"."""
    needed = member_bytes(settings, data, device) + kept_bytes(rule, settings, data)
    fitting = MEMORY_BUDGET[device] // max(needed, 1)
    if device == "cpu":
        fitting = min(fitting, max(2, CACHE_BUDGET // _working_set(settings, data)))
    return max(1, min(MOST_MEMBERS[device], fitting))
