"""Streams are functions of (seed, stream, layer, step, element), and look random along every axis."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from alignkit.numerics import streams


def _uniforms(seeds, *, layer=1, step=1, count=4096):
    words = streams.DropoutUniforms(torch.tensor(seeds), layer=layer).draw(step=step, count=count)[0]
    return (words.double() + 32768) / 65536


def test_draws_are_functions_of_their_arguments():
    draw = streams.gaussian(3, "feedback", shape=(5, 4), layer=2)
    assert np.array_equal(draw, streams.gaussian(3, "feedback", shape=(5, 4), layer=2))
    for other in ((4, "feedback", 2, 0), (3, "initialisation", 2, 0), (3, "feedback", 1, 0), (3, "feedback", 2, 1)):
        seed, stream, layer, step = other
        assert not np.array_equal(draw, streams.gaussian(seed, stream, shape=(5, 4), layer=layer, step=step))


def test_the_generator_is_the_philox_of_its_paper():
    # known answer of Philox 4x64-10 for zero counter and key (Random123's kat_vectors); NumPy steps the
    # counter before its first block, so the generator starts one below zero
    generator = np.random.Philox(key=0, counter=2**256 - 1)
    wanted = [0x16554D9ECA36314C, 0xDB20FE9D672D0FDC, 0xD7E772CEE186176B, 0x7E68B68AEC7BA23B]
    assert generator.random_raw(4).tolist() == wanted


def test_gaussian_draws_are_gaussian():
    draw = streams.gaussian(0, "feedback", shape=(20000,))
    assert stats.kstest(draw, "norm").pvalue > 1e-3


def test_permutations_hold_every_item_once():
    order = streams.permutation(1, "order", count=1000, step=4)
    assert np.array_equal(np.sort(order), np.arange(1000))
    assert not np.array_equal(order, streams.permutation(1, "order", count=1000, step=5))


def test_dropout_uniforms_are_uniform():
    values = _uniforms(list(range(16)))
    assert stats.kstest(values.flatten().numpy(), "uniform").pvalue > 1e-3
    assert stats.chisquare(np.histogram(values[:, ::2].numpy(), 64, (0, 1))[0]).pvalue > 1e-4


@pytest.mark.parametrize("axis", ["element", "pair", "member", "step", "layer"])
def test_dropout_uniforms_are_uncorrelated_along(axis):
    base = _uniforms(list(range(200)))
    other = {
        "element": lambda: torch.roll(base, 2, 1),
        "pair": lambda: torch.roll(base, 1, 1),  # the two halves of a word
        "member": lambda: torch.roll(base, 1, 0),
        "step": lambda: _uniforms(list(range(200)), step=2),
        "layer": lambda: _uniforms(list(range(200)), layer=2),
    }[axis]()
    z = np.corrcoef(base.flatten().numpy(), other.flatten().numpy())[0, 1] * base.numel() ** 0.5
    assert abs(z) < 4.5


def test_a_member_s_masks_do_not_depend_on_the_others():
    alone = streams.DropoutUniforms(torch.tensor([7]), layer=1).draw(step=9, count=33)
    company = streams.DropoutUniforms(torch.tensor([3, 7, 11]), layer=1).draw(step=9, count=33)
    assert torch.equal(alone[0, 0], company[0, 1])


def test_a_draw_is_a_function_of_its_step_alone():
    draws = streams.DropoutUniforms(torch.tensor([3, 7]), layer=1)
    for step in (63, 64, -1, 0, 63, 1000, -65):  # across the blocks of steps whose keys are worked out together
        drawn = draws.draw(step=step, count=33)
        alone = streams.DropoutUniforms(torch.tensor([3, 7]), layer=1).draw(step=torch.tensor([step]), count=33)
        assert torch.equal(drawn, alone)
    for steps in (1, 2, 8, 64):
        first = 1000 - 1000 % steps
        drawn = draws.draw(step=first, count=33, steps=steps)
        assert drawn.shape == (steps, 2, 33)
        assert torch.equal(drawn[1000 - first], draws.draw(step=1000, count=33)[0])


def test_large_and_negative_seeds_and_steps():
    values = _uniforms([-(2**62), 2**62, -1, 0], step=-5)
    assert len({tuple(row.tolist()[:8]) for row in values}) == 4
    assert abs(values.mean().item() - 0.5) < 0.02


def test_thresholds_drop_the_rate():
    words = streams.DropoutUniforms(torch.arange(50), layer=0).draw(step=0, count=2000)[0].int()
    for rate in (0.0, 0.1, 0.5, 0.9):
        dropped = (words <= streams.last_dropped(rate)).double().mean().item()
        assert dropped == pytest.approx(rate, abs=0.006)
    assert not (words <= streams.last_dropped(0.0)).any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_masks_are_the_scales_where_uniforms_reach_the_threshold(dtype):
    words = streams.DropoutUniforms(torch.arange(4), layer=0).draw(step=0, count=999)[0]
    words[:, :3] = torch.tensor([-32768, 32767, 0], dtype=torch.int16)
    dropped = torch.tensor([-32769, -1, 3000, 32766], dtype=torch.int32)[:, None]
    scales = torch.tensor([1.0, 2.0, 1.2, 65536.0], dtype=dtype)[:, None]
    mask = streams.dropout_mask(words, last_dropped=dropped, scales=scales)
    assert mask.dtype == dtype and torch.equal(mask, torch.where(words > dropped, scales, 0.0).to(dtype))
