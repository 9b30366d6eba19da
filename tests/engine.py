"""Slow, obvious counterparts of the engine, built from torch.nn, and helpers to set cohorts up."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

from alignkit.networks.forward_pass import Pass
from alignkit.networks.members import Member
from alignkit.networks.network import Network
from alignkit.networks.parameters import Parameters
from alignkit.networks.shapes import LayerShape
from alignkit.networks.stages import Activation, Dropout, MaxPool, Norm
from alignkit.settings.study_options import Settings
from alignkit.settings.validation import with_tags


def members_of(count: int = 3, *, dtype: str = "float64", **sections: dict[str, Any]) -> list[Member]:
    training = {"dtype": dtype, **sections.pop("training", {})}
    settings = Settings.model_validate(with_tags({**sections, "training": training}))
    return [Member(settings, seed) for seed in range(count)]


def cohort_of(
    members: list[Member], *, shape: tuple[int, ...], outputs: int = 4, samples: int = 6, task: str = "classification"
) -> tuple[Network, Tensor, Tensor]:
    """A network and a batch of random data [E, N, *shape], different for each member."""
    network = Network(members, shape=shape, outputs=outputs)
    generator = torch.Generator().manual_seed(7)
    dtype = network.parameters.storage.dtype
    x = torch.randn(len(members), samples, *shape, generator=generator, dtype=torch.float64).to(dtype)
    if task == "regression":
        return (
            network,
            x,
            torch.randn(len(members), samples, outputs, generator=generator, dtype=torch.float64).to(dtype),
        )
    return network, x, torch.randint(outputs, (len(members), samples), generator=generator)


def hidden_and_output(parameters: Parameters) -> tuple[Tensor, Tensor]:
    """The hidden layers' and the output layer's part of all members' parameters."""
    split = parameters.n_members * parameters.layout.split
    return parameters.storage[:split], parameters.storage[split:]


class LocallyConnected(nn.Module):
    """A kernel at every position, one position at a time."""

    def __init__(self, layer: LayerShape) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, h: Tensor) -> Tensor:
        layer, k = self.layer, self.layer.weight[-1]
        padded = nn.functional.pad(h, [layer.padding] * 4)
        height, width = padded.shape[-2] - k + 1, padded.shape[-1] - k + 1
        kernels = self.weight.view(layer.channels, height, width, *layer.weight[1:])
        bias = self.bias.view(layer.channels, height, width)
        rows = []
        for i in range(height):
            there = [
                torch.einsum("nckl,ockl->no", padded[..., i : i + k, j : j + k], kernels[:, i, j]) for j in range(width)
            ]
            rows.append(torch.stack(there, -1))
        return torch.stack(rows, -2) + bias


class Reference(nn.Module):
    """One member of a cohort as a plain torch module: same weights, and the masks of a given pass.

    Of the last call, gradients kept: `hidden[l - 1]` is h_l, `sums[l - 1]` what layer l was given and z_l,
    `normalised[l]` what layer l's norm handed on. `magnified` is how many times larger a norm made relative errors.
    """

    def __init__(self, network: Network, member: int, forward_pass: Pass | None = None, *, train: bool = True) -> None:
        super().__init__()
        self.network, self.member, self.forward_pass = network, member, forward_pass
        self.hidden: list[Tensor] = []
        self.sums: list[tuple[Tensor, Tensor]] = []
        self.normalised: dict[int, Tensor] = {}
        self.magnified = 1.0
        self.layers = nn.ModuleList()
        self.norms: dict[int, nn.Module] = {}
        for index, layer in enumerate(network.layers, start=1):
            if layer.local:
                op: nn.Module = LocallyConnected(layer)
            elif layer.convolution:
                op = nn.Conv2d(layer.weight[1], layer.weight[0], layer.weight[2], padding=layer.padding)
            else:
                op = nn.Linear(layer.weight[1], layer.weight[0])
            values = {name: view[member].clone() for name, view in network.parameters.of_layer(index).items()}
            op.weight, op.bias = nn.Parameter(values["weight"]), nn.Parameter(values["bias"])
            self.layers.append(op)
            if layer.options is not None and layer.options.norm != "none":
                norm = self._norm(index, str(layer.options.norm), layer.channels, layer.convolution)
                norm.weight, norm.bias = nn.Parameter(values["gain"]), nn.Parameter(values["shift"])
                self.norms[index] = norm
                self.add_module(f"norm{index}", norm)
        self.train(train)

    def _norm(self, index: int, kind: str, units: int, convolution: bool) -> nn.Module:
        dtype = self.network.parameters.storage.dtype
        if kind == "batch":
            norm = (nn.BatchNorm2d if convolution else nn.BatchNorm1d)(units).to(dtype)
            stage = next(stage for stage in self.network.stages[index - 1] if isinstance(stage, Norm))
            norm.running_mean.copy_(stage.running_mean[self.member])
            norm.running_var.copy_(stage.running_variance[self.member])
            return norm
        # over channels and positions with a gain per channel, which is GroupNorm with one group
        return nn.GroupNorm(1, units).to(dtype) if convolution else nn.LayerNorm(units).to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        """x: [N, …] as the first layer saw it, input dropout included."""
        self.hidden, self.sums, self.normalised, self.magnified = [], [], {}, 1.0
        for index, (layer, op) in enumerate(zip(self.network.layers, self.layers, strict=True), start=1):
            given = x if layer.convolution else x.flatten(1)
            x = op(given)
            x.retain_grad()
            self.sums.append((given, x))
            if layer.options is None:
                return x
            for position, stage in enumerate(self.network.stages[index - 1]):
                x = self._stage(index, position, stage, x)
            x.retain_grad()
            self.hidden.append(x)
        raise AssertionError("a network ends with its output layer")

    def _stage(self, index: int, position: int, stage: Any, x: Tensor) -> Tensor:
        options = self.network.layers[index - 1].options
        assert options is not None
        if isinstance(stage, Norm):
            self.magnified = max(self.magnified, _magnification(self.norms[index], x))
            self.normalised[index] = y = self.norms[index](x)
            y.retain_grad()
            return y
        if isinstance(stage, Activation):
            functions = {
                "tanh": torch.tanh, "relu": torch.relu, "sigmoid": torch.sigmoid, "gelu": nn.functional.gelu,
                "leaky_relu": lambda z: nn.functional.leaky_relu(z, options.slope),
                "erf": lambda z: torch.erf(z / 2**0.5), "linear": lambda z: z,
            }  # fmt: skip
            return functions[str(options.activation)](x)
        if isinstance(stage, Dropout):
            mask = None if self.forward_pass is None else self.forward_pass.caches[index - 1][position]
            return x if mask is None else x * mask[self.member]
        assert isinstance(stage, MaxPool)
        assert self.network.layers[index - 1].pool is not None
        return nn.functional.max_pool2d(x, *self.network.layers[index - 1].pool)


def _magnification(norm: nn.Module, x: Tensor) -> float:
    """How many times larger a norm makes relative errors of its input: the largest entry over its spread. The mean is
    taken away, the rounding of what it is taken from stays."""
    over = (0, *range(2, x.dim())) if isinstance(norm, BatchNorm) else tuple(range(1, x.dim()))
    variance = x.var(over, correction=0, keepdim=True)
    if isinstance(norm, BatchNorm) and not norm.training:
        variance = norm.running_var.view_as(variance)
    return (x.abs() / (variance + norm.eps).sqrt()).max().item()


def cosine_rounding(h: Tensor, *deltas: Tensor) -> Tensor:
    """What float32 may add to the cosine of two weight gradients, sums over samples of δ_n h_nᵀ, [E]: a few roundings.

    Beside a gradient they are the longer the more of its terms cancel; of their length, which has no direction of its
    own among the d d' entries, a share of 1 / sqrt(d d') lies along the other gradient.
    """
    h, rounding = h.double(), torch.finfo(torch.float32).eps
    most = torch.zeros(len(h), dtype=torch.float64)
    for delta in (each.double() for each in deltas):
        gradient, terms = (delta.mT @ h).flatten(1), h.norm(dim=-1) * delta.norm(dim=-1)
        most = torch.fmax(most, terms.norm(dim=-1) / gradient.norm(dim=-1) / gradient.shape[1] ** 0.5)
    return 4 * rounding * (1 + most)


def reference_loss(network: Network, output: Tensor, targets: Tensor) -> Tensor:
    """The summed loss of one member, from torch's own losses."""
    if network.loss == "cross_entropy":
        return nn.functional.cross_entropy(output, targets, reduction="sum")
    if not targets.is_floating_point():
        targets = nn.functional.one_hot(targets, output.shape[-1]).to(output.dtype)
    return 0.5 * nn.functional.mse_loss(output, targets, reduction="sum")
