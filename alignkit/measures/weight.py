"""What a layer's feedback stands for in a linear network: the product of the weights above it."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from alignkit.columns import MEASURES
from alignkit.measures.angles import frobenius_cosine
from alignkit.measures.measure import Measure, OfLayer
from alignkit.networks.forward_pass import Pass
from alignkit.networks.network import Network
from alignkit.numerics.kinds import Float
from alignkit.numerics.products import matmul

WeightProduct = Float[Tensor, "E C _"]


class Weight(Measure):
    columns, needs = MEASURES["weight"], ("network",)

    def of_network(self, forward_pass: Pass) -> Sequence[OfLayer]:
        products = weight_products(self.subject.network)
        return [{"weight_cosine": self._cosine(layer, product)} for layer, product in enumerate(products, start=1)]

    def _cosine(self, layer: int, product: Tensor | None) -> Tensor:
        """DFA's B_l against W_L … W_{l+1}, another rule's B_{l+1} against W_{l+1}."""
        projection = self.subject.projection(layer)
        if projection is not None and not projection.from_error:
            product = self.subject.network.weight(layer + 1)
        if projection is None or product is None:
            return self.subject.undefined
        return frobenius_cosine(projection.matrix, product)


def weight_products(network: Network) -> list[WeightProduct | None]:
    """W_L … W_{l+1}, [E, C, d_l] for each hidden layer; None where another op lies between."""
    product: Tensor | None = network.weight(len(network.layers))
    found = [product]
    for layer in range(len(network.layers) - 1, 1, -1):
        if not network.layers[layer - 1].dense:
            product = None
        elif product is not None:
            product = matmul(product, network.weight(layer))
        found.append(product)
    return found[::-1]
