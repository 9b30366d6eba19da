"""Fixed masks: weights that never change, and entries of teaching signals that never arrive."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from alignkit.networks.members import Member
from alignkit.networks.shapes import LayerShape, resolve_options
from alignkit.numerics import streams

_WEIGHT, _BIAS, _SIGNAL = range(3)


@dataclass(frozen=True)
class Masks:
    """What is kept (1) and what is not (0), by hidden layer; layers that keep all are absent.

    `trained[layer]` holds masks of its `weight` and `bias`, [E, *shape]; `signals[layer]` one of the signal at its
    output, [E, batch, d_l].
    """

    trained: dict[int, dict[str, Tensor]]
    signals: dict[int, Tensor]

    @classmethod
    def of(
        cls, members: Sequence[Member], layers: Sequence[LayerShape], like: Tensor, *, draw: int = 0
    ) -> Masks | None:
        """The members' masks, None where they have none. Another `draw` (1, 2, …) gives independent ones."""
        trained: dict[int, dict[str, Tensor]] = {}
        signals: dict[int, Tensor] = {}
        for index, layer in enumerate(layers[:-1], start=1):
            resolved = [resolve_options(m.settings, index - 1, convolution=layer.convolution) for m in members]
            frozen, masked = [r.frozen or 0.0 for r in resolved], [r.signal_masked or 0.0 for r in resolved]
            seeds = [member.seed_of("masks") for member in members]

            def kept(
                shares: list[float], shape: tuple[int, ...], kind: int, index: int = index, seeds: list[int] = seeds
            ) -> Tensor:
                own = [
                    streams.uniform(seed, "masks", shape=shape, layer=index, step=3 * draw + kind) >= share
                    for seed, share in zip(seeds, shares, strict=True)
                ]
                return torch.from_numpy(np.stack(own)).to(device=like.device, dtype=like.dtype).clone()

            if any(frozen):
                trained[index] = {
                    "weight": kept(frozen, layer.weight, _WEIGHT),
                    "bias": kept(frozen, layer.bias, _BIAS),
                }
            if any(masked):
                signals[index] = kept(masked, (members[0].settings.training.batch_size, layer.size), _SIGNAL)
        return cls(trained, signals) if trained or signals else None

    def signal(self, layer: int, signal: Tensor) -> Tensor:
        """A signal at h_l, [E, N, d_l], without its masked entries. Sample n is under the mask of place n modulo the
        batch."""
        mask = self.signals.get(layer)
        if mask is None:
            return signal
        samples, places = signal.shape[1], mask.shape[1]
        if samples != places:
            mask = mask[:, torch.arange(samples, device=mask.device) % places]
        return signal * mask

    def freeze(self, layer: int, gradients: dict[str, Tensor]) -> None:
        """Set the gradients of a layer's frozen weights and biases to zero, in place."""
        for name, mask in self.trained.get(layer, {}).items():
            gradients[name] *= mask
