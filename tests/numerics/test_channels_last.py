"""Images lie channels last in a CPU's memory, and mean what they did."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from alignkit.networks.stages import EVALUATION, MaxPool
from alignkit.numerics.channels_last import channels_last, in_memory_order, stack_channels_last
from alignkit.numerics.products import in_whole_vectors


def images(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("turned", [False, True])
def test_members_are_stacked_channels_last(members, turned):
    each = [images(5, 3, 4, 6, seed=seed) for seed in range(members)]
    found = stack_channels_last((channels_last(one) if turned else one for one in each), n_members=members)
    assert torch.equal(found, torch.stack(each))
    assert found.permute(0, 1, 3, 4, 2).is_contiguous()


def test_inner_products_are_those_of_any_order_and_nothing_is_copied():
    each = [images(5, 3, 4, 6, seed=seed) for seed in range(4)]
    a, b = (stack_channels_last(pair, n_members=2).double() for pair in (each[:2], each[2:]))
    found, wanted = (in_memory_order(a) * in_memory_order(b)).sum(-1), (a * b).flatten(2).sum(-1)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)
    assert in_memory_order(a).data_ptr() == a.data_ptr()
    vectors = images(2, 5, 7)
    assert torch.equal(in_memory_order(vectors), vectors)


@pytest.mark.parametrize("size,stride", [(3, 2), (2, 2), (3, 1)])
@pytest.mark.parametrize("channels", [1, 3, 16])
def test_pooling_is_torch_s_ties_and_nans_included(channels, size, stride):
    x = images(2, 4, channels, 9, 8).relu()  # zeros tie
    x[0, 1, 0, 2, 3] = torch.nan
    signal = images(2, 4, channels, (9 - size) // stride + 1, (8 - size) // stride + 1, seed=1)
    pool, own = MaxPool(size, stride), x.clone().requires_grad_()
    wanted = F.max_pool2d(own.flatten(0, 1), size, stride)
    wanted.backward(signal.flatten(0, 1))
    for given in (x, stack_channels_last(list(x), n_members=2)):
        value, cache = pool.forward(given, EVALUATION)
        torch.testing.assert_close(value.flatten(0, 1), wanted, rtol=0, atol=0, equal_nan=True)
        assert torch.equal(pool.pull_back(signal, cache, None), own.grad)


def test_loops_have_no_remainder_over_what_lies_in_one_piece_in_one_order():
    x = images(2, 3, 4, 2, 4)
    turned = x.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
    assert in_whole_vectors(x, x.clone()) and in_whole_vectors(turned, turned.clone())
    assert not in_whole_vectors(turned, x)  # two orders
    assert not in_whole_vectors(x[:1].expand(2, -1, -1, -1, -1), x)  # one piece, twice
    assert not in_whole_vectors(images(2, 3, 4, 4, 4)[..., :2, :])  # gaps
    assert not in_whole_vectors(images(2, 3, 5))
