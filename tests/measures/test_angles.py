"""Cosines and angles at their edges."""

from __future__ import annotations

import math
import operator

import numpy as np
import pytest
import torch
from scipy import stats

from alignkit.measures import angles
from alignkit.numerics.inner_products import (
    BLOCK,
    LONGEST_DOT,
    centred,
    cosine_and_lengths,
    length,
    sums_of_samples,
    update_products,
)


def _rounding(terms, dtype=torch.float64):
    """What a sum of so many terms, in any order, may lose, as a share of the sum of their sizes."""
    return (terms + 4) * torch.finfo(dtype).eps


def _chance_sd(sources, references):
    return angles.chance_sd(angles.Directions(sources), angles.Directions(references))


def _ceiling(matrix, references, *, sum_zero):
    return angles.ceiling(angles.row_space(matrix, sum_zero=sum_zero), angles.Directions(references))


@pytest.mark.parametrize("degrees", [0.0, 1e-6, 1e-3, 30.0, 90.0, 179.999, 180.0])
def test_angles_are_exact_near_their_bounds(degrees):
    theta = math.radians(degrees)
    u = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    v = torch.tensor([math.cos(theta), math.sin(theta), 0.0], dtype=torch.float64)
    assert angles.angle_deg(u, 3.0 * v).item() == pytest.approx(degrees, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("scale", [1e-200, 1e-30, 1.0, 1e200])
def test_positive_scaling_is_ignored(scale):
    generator = torch.Generator().manual_seed(0)
    u, v = torch.randn(2, 5, 7, generator=generator, dtype=torch.float64)
    assert torch.allclose(angles.cosine(u, v), angles.cosine(u * scale, v), rtol=1e-12)
    assert torch.allclose(angles.angle_deg(u, v), angles.angle_deg(u, v * scale), rtol=1e-12)


def test_float32_subnormals_are_not_pulled_toward_zero():
    u = torch.tensor([3e-40, 4e-40], dtype=torch.float32)
    assert angles.cosine(u, u).item() == pytest.approx(1.0, abs=1e-12)


def test_a_zero_vector_has_no_angle():
    u = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    v = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    assert angles.cosine(u, v).isnan().all() and angles.angle_deg(u, v).isnan().all()


def test_one_sample_s_chance_is_the_beta_law():
    d = 12
    g = torch.zeros(1, 1, d)
    g[0, 0, 3] = 2.0
    assert _chance_sd(torch.ones(1, 1, 5), g).item() == pytest.approx(1 / d**0.5)
    draws = np.random.default_rng(0).standard_normal((4000, d))
    cosines = angles.cosine(torch.from_numpy(draws), g[0].double()).numpy()
    assert stats.kstest((cosines + 1) / 2, stats.beta((d - 1) / 2, (d - 1) / 2).cdf).pvalue > 1e-3


def test_identical_samples_do_not_average_chance_away():
    one = torch.randn(1, 1, 9, generator=torch.Generator().manual_seed(0))
    source = torch.ones(1, 1, 3)
    alone = _chance_sd(source, one)
    many = _chance_sd(source.expand(1, 50, 3), one.expand(1, 50, 9))
    assert alone.item() == pytest.approx(many.item())


def test_ceiling_of_a_full_row_space_is_one_and_of_sum_zero_loses_a_dimension():
    g = torch.randn(1, 20, 4, generator=torch.Generator().manual_seed(0))
    square = torch.eye(4)[None]
    assert torch.allclose(_ceiling(square, g, sum_zero=False), torch.ones(1, 20).double())
    wide = g.double()
    wanted = (wide - wide.mean(-1, keepdim=True)).norm(dim=-1) / wide.norm(dim=-1)
    assert torch.allclose(_ceiling(square, g, sum_zero=True), wanted, rtol=0, atol=1e-12)


def test_no_use_of_the_feedback_beats_the_ceiling():
    generator = torch.Generator().manual_seed(1)
    matrix, g = torch.randn(1, 5, 30, generator=generator).double(), torch.randn(1, 8, 30, generator=generator).double()
    ceiling = _ceiling(matrix, g, sum_zero=True)
    sources = torch.randn(1, 8, 5, generator=generator).double()
    sources -= sources.mean(-1, keepdim=True)
    assert (angles.cosine(sources @ matrix, g).abs() <= ceiling + 1e-12).all()


@pytest.mark.parametrize("samples,width", [(50, 8), (8, 50)])
def test_effective_rank_of_equal_directions_is_their_number(samples, width):
    k = 4
    basis = torch.eye(max(samples, width))[:k]
    h = torch.cat([basis, -basis])[:, :width] if samples > width else torch.cat([basis, -basis])[:samples, :width]
    assert angles.effective_rank(h[None]).item() == pytest.approx(k)


@pytest.mark.parametrize("dtype,extremes", [(torch.float32, (1e-30, 1e30)), (torch.float64, (1e-180, 1e180))])
@pytest.mark.parametrize("shape", [(9, 30), (30, 9), (33, 17)])
def test_effective_rank_is_that_of_the_covariance_at_every_scale_and_in_any_company(shape, dtype, extremes):
    generator = torch.Generator().manual_seed(5)
    h = (torch.randn(3, *shape, generator=generator) * torch.rand(shape[1], generator=generator) + 0.3).to(dtype)
    found = angles.effective_rank(h)
    # products of samples may lose as much as is in their lengths, of which the root of the rank's share is in G's own
    allowed = 2 * _rounding(max(shape), dtype) * (1 + found.sqrt().max().item())
    for member, activations in enumerate(h.double().numpy()):
        eigenvalues = np.linalg.eigvalsh(np.cov(activations.T))
        wanted = eigenvalues.sum() ** 2 / (eigenvalues**2).sum()
        assert found[member].item() == pytest.approx(wanted, rel=allowed)
    assert torch.equal(angles.effective_rank(h[1:2].clone()), found[1:2])
    for scale in extremes:
        scaled = torch.stack([h[0], h[1] * scale, torch.full_like(h[2], 0.25)])
        again = angles.effective_rank(scaled)
        assert torch.equal(again[0], found[0])  # a company that has to be scaled changes no bit
        assert again[1].item() == pytest.approx(found[1].item(), rel=allowed) and again[2].isnan()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_cosine_of_large_arrays_is_that_of_small_ones(dtype):
    generator = torch.Generator().manual_seed(3)
    a, b = (torch.randn(4, 150, 120, generator=generator).to(dtype) for _ in range(2))
    a[1] *= 1e-30
    a[2] = b[2]
    b[3] = 0.0
    assert a[0].numel() > 2 * LONGEST_DOT
    found = angles.frobenius_cosine(a, b)
    wanted = [
        np.sum(u * v) / np.linalg.norm(u) / np.linalg.norm(v)
        for u, v in zip(a.double().numpy()[:3], b.double().numpy()[:3], strict=True)
    ]
    assert found[:3].numpy() == pytest.approx(wanted, abs=2 * _rounding(a[0].numel()))
    assert wanted[2] == pytest.approx(1.0) and found[3].isnan()


@pytest.mark.parametrize("common", [1.0, 300.0])
def test_effective_rank_of_units_that_hardly_vary_is_not_that_of_rounding(common):
    """Saturated units: a step of float32 or none from their common value."""
    generator, top = torch.Generator().manual_seed(0), torch.tensor(common)
    h = torch.where(torch.rand(1, 128, 64, generator=generator) < 0.25, torch.nextafter(top, torch.tensor(0.0)), top)
    wanted = angles.effective_rank(h.double()).item()
    allowed = 2 * _rounding(128, torch.float32) * (1 + wanted**0.5)
    assert angles.effective_rank(h).item() == pytest.approx(wanted, rel=allowed)
    assert angles.effective_rank(h).item() > 40


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_activations_that_are_the_same_for_every_sample_have_no_rank(dtype):
    h = torch.randn(3, 1, 21, generator=torch.Generator().manual_seed(2)).to(dtype).expand(3, 33, 21).contiguous()
    assert angles.effective_rank(h).isnan().all()


@pytest.mark.parametrize("shape", [(1, 1), (7, 1), (33, 5), (12, 64), (130, 257), (300, 300)])
def test_values_are_centred_in_float64_and_not_by_their_company(shape):
    values = torch.randn(5, *shape, generator=torch.Generator().manual_seed(1)) + 3.0
    found = centred(values)
    wide = values.double().numpy()
    wanted = wide - np.array([[math.fsum(column) / shape[0] for column in member.T] for member in wide])[:, None]
    assert found.dtype == values.dtype
    of_means = _rounding(shape[0]) * values.abs().max().item()
    in_float32 = torch.finfo(torch.float32).eps
    np.testing.assert_allclose(found.numpy(), wanted, rtol=in_float32, atol=of_means)
    as_on_a_gpu = centred(values.clone().requires_grad_()).detach()
    assert torch.allclose(as_on_a_gpu, found, rtol=2 * in_float32, atol=2 * of_means)
    for member in range(5):
        assert torch.equal(centred(values[member : member + 1].clone())[0], found[member])


@pytest.mark.parametrize(
    "degrees", [0.0, 1e-7, 1e-3, 25.8, 25.9, 60.0, 90.0, 154.1, 154.2, 179.9999, 180.0 - 1e-7, 180.0]
)
def test_angles_are_exact_at_every_size(degrees):
    """Near 0 and 180 degrees, where arccos of the cosine is not, and on both sides of where arccos takes over."""
    turned = torch.tensor([[np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees)), 0.0]], dtype=torch.float64)
    for scale in (1.0, 1e-200):
        found = angles.angle_deg(torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64), turned * scale)
        assert found.item() == pytest.approx(degrees, rel=1e-9, abs=1e-13)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_lengths_keep_their_scale(dtype):
    vectors = torch.tensor([[[3.0, 4.0], [0.0, 0.0], [3e-30, 4e-30], [3e30, 4e30]]], dtype=dtype)
    directions = angles.Directions(vectors)
    assert directions.length[0].tolist() == pytest.approx([5.0, 0.0, 5e-30, 5e30], rel=1e-6)
    assert directions.undefined[0].tolist() == [False, True, False, False]
    lost = angles.Directions(torch.tensor([[[math.inf, 1.0], [math.nan, 1.0]]], dtype=dtype))
    assert lost.undefined.all() and lost.unit.isnan().any(-1).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("d", [1, 10, LONGEST_DOT, LONGEST_DOT + 1])
def test_a_cosine_and_lengths_are_summed_in_float64_in_one_piece_or_not(d, dtype):
    u, v = torch.randn(2, 3, d, dtype=dtype, generator=torch.Generator().manual_seed(d))
    v[0] = 0.0
    found, allowed = cosine_and_lengths(u, v), 2 * _rounding(d)
    assert all(values.dtype == torch.float64 for values in found)
    for n in range(3):
        a, b = u[n].tolist(), v[n].tolist()
        cosine = math.fsum(map(operator.mul, a, b)) / (math.hypot(*a) * math.hypot(*b)) if any(b) else math.nan
        wanted = (cosine, math.hypot(*a), math.hypot(*b))
        assert [each[n].item() for each in found] == pytest.approx(wanted, rel=allowed, abs=allowed, nan_ok=True)
    as_on_a_gpu = cosine_and_lengths(u.clone().requires_grad_(), v)
    for own, other in zip(found, as_on_a_gpu, strict=True):
        assert torch.allclose(own, other.detach(), rtol=2 * allowed, atol=2 * allowed, equal_nan=True)


@pytest.mark.parametrize("shape", [(1, 1), (7, 1), (33, 5), (12, 64), (130, 257)])
def test_sums_of_samples_are_in_float64_and_do_not_depend_on_company(shape):
    values = torch.randn(5, *shape, generator=torch.Generator().manual_seed(1)) + 3.0
    found = sums_of_samples(values)
    wanted = [[math.fsum(column) for column in member.T] for member in values.double().numpy()]
    assert found.numpy() == pytest.approx(
        np.array(wanted), abs=_rounding(shape[0]) * values[0].abs().sum(0).max().item()
    )
    for member in range(5):
        assert torch.equal(sums_of_samples(values[member : member + 1].clone())[0], found[member])


SHAPES = {"blocks of rows": (3, BLOCK // 20 + 7, 20), "pieces": (2, 3 * LONGEST_DOT + 5), "one row": (1, 1, 9)}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_blocks_give_what_whole_tensors_give(shape, dtype):
    generator = torch.Generator().manual_seed(11)
    new, old, direction = (torch.randn(shape, dtype=dtype, generator=generator) for _ in range(3))
    new[0] = old[0] + 1e-4 * direction[0]
    wanted = update_products(new.clone().requires_grad_(), old, direction)  # the way that a GPU takes
    found = update_products(new, old, direction)
    allowed = 2 * _rounding(shape[-1])
    scales = wanted[1] * wanted[3], *wanted[1:]  # an inner product loses a share of both lengths
    for own, other, scale in zip(found, wanted, scales, strict=True):
        assert own.shape == shape[:-1] and ((own - other).detach().abs() <= allowed * scale.detach()).all()
    in_numpy = np.sqrt((old.double().numpy() ** 2).sum(-1))
    assert np.allclose(found[2], in_numpy, rtol=allowed, atol=0) and torch.equal(length(old), found[2])
    assert torch.equal(cosine_and_lengths(old, direction)[1], found[2])


def test_rows_of_a_larger_tensor_and_broadcast_ones_have_the_products_of_their_copies():
    generator = torch.Generator().manual_seed(12)
    whole = torch.randn(4, 3 * LONGEST_DOT, generator=generator)
    part, row = whole[:, 5 : LONGEST_DOT + 50], torch.randn(LONGEST_DOT + 45, generator=generator)
    wanted = cosine_and_lengths(part.clone(), row.repeat(4, 1))
    for found, of_copies in zip(cosine_and_lengths(part, row), wanted, strict=True):
        assert torch.equal(found, of_copies)


@pytest.mark.parametrize("d", [1, 7, 33, 64, 255, LONGEST_DOT - 1, 2 * LONGEST_DOT, 2 * LONGEST_DOT + 5])
def test_the_products_of_a_row_do_not_depend_on_the_other_rows(d):
    generator = torch.Generator().manual_seed(d)
    tensors = [torch.randn(70 if d < 999 else 5, d, generator=generator) for _ in range(3)]
    of_all = torch.stack(update_products(*tensors), 1)
    for row in (0, 1, 2, 4, len(of_all) - 1):
        alone = torch.stack(update_products(*(tensor[row : row + 1].clone() for tensor in tensors)), 1)
        later = torch.stack(update_products(*(tensor[row:] for tensor in tensors)), 1)
        assert torch.equal(alone[0], of_all[row]) and torch.equal(later, of_all[row:])
