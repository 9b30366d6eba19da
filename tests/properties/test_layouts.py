"""All parameters of a cohort in one tensor: none overlaps another, all are whole, and members start aligned."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from alignkit.networks.parameters import ALIGNMENT, Layout, Parameters

SHAPES = st.lists(st.integers(1, 9), min_size=1, max_size=4).map(tuple)
KEYS = st.tuples(st.integers(1, 4), st.sampled_from(["weight", "bias", "gain", "shift"]))


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    shapes = draw(st.dictionaries(KEYS, SHAPES, min_size=1, max_size=8))
    matrices = [key for key, shape in shapes.items() if len(shape) == 2]
    transposed = draw(st.sets(st.sampled_from(matrices))) if matrices else set()
    return Layout.of(shapes, output_layer=draw(st.integers(1, 5)), transposed=frozenset(transposed))


def parameters(layout: Layout, members: int) -> Parameters:
    return Parameters.zeros(layout, n_members=members, device=torch.device("cpu"), dtype=torch.float64)


@given(layouts(), st.integers(1, 3))
def test_every_element_of_every_parameter_has_a_place_of_its_own(layout: Layout, members: int) -> None:
    found = parameters(layout, members)
    written, next_value = {}, 1.0
    for key, view in found.views.items():
        written[key] = torch.arange(next_value, next_value + view.numel(), dtype=view.dtype).view(view.shape)
        next_value += view.numel()
        view.copy_(written[key])
    assert next_value - 1 == layout.count * members
    for key, view in found.views.items():
        assert view.shape == (members, *layout.shapes[key]) and torch.equal(view, written[key])
        assert found.of_layer(key[0])[key[1]] is view
    in_memory = found.storage[found.storage != 0].sort().values
    assert torch.equal(in_memory, torch.arange(1, next_value, dtype=in_memory.dtype))


@given(layouts(), st.integers(1, 3))
def test_members_start_aligned_and_blocks_fill_the_memory(layout: Layout, members: int) -> None:
    found = parameters(layout, members)
    assert len(found.storage) == members * layout.size and layout.size % ALIGNMENT == 0
    end = 0
    for key in sorted(layout.starts, key=layout.starts.__getitem__):
        block, view = found.blocks[key], found.views[key]
        assert block.storage_offset() == end == view.storage_offset()
        assert block.stride(0) == view.stride(0) and block.stride(0) % ALIGNMENT == 0 and block.is_contiguous()
        if key in layout.transposed:
            assert view[0].t().is_contiguous()
        else:
            assert view[0].is_contiguous()
        end += block.numel()
    assert end == len(found.storage)


@given(layouts(), st.integers(1, 5))
def test_what_learns_at_the_output_layer_s_rate_comes_last(layout: Layout, output_layer: int) -> None:
    layout = Layout.of(layout.shapes, output_layer=output_layer, transposed=layout.transposed)
    assert {key for key in layout.shapes if layout.of_output(key)} == {
        key for key in layout.shapes if key[0] >= output_layer
    }
    assert all((layout.starts[key] < layout.split) == (key[0] < output_layer) for key in layout.shapes)
