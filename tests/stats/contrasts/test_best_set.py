"""Which cells may be the best, against a slow form of itself and simulated truth."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest

from alignkit.errors import AnalysisError
from alignkit.stats.contrasts.best_set import CommonLevels, best_set, common_levels, in_words


def simulated(truth: np.ndarray, *, seeds: int, generator: np.random.Generator) -> np.ndarray:
    """Values [seeds, cells] whose errors are shared by a seed, and larger in some cells than in others."""
    shared = generator.normal(0, 2, (seeds, 1))
    sizes = np.linspace(0.5, 2.0, len(truth))
    return truth + shared + generator.normal(0, 1, (seeds, len(truth))) * sizes


def test_p_of_each_cell_is_that_of_the_slow_form() -> None:
    values = np.random.default_rng(0).normal([0, 0.5, 1, 3], 1, (6, 4))
    found = best_set(values, better="higher")
    for cell in range(4):
        leads = values[:, [other for other in range(4) if other != cell]] - values[:, [cell]]
        largest = []
        for signs in itertools.product((1, -1), repeat=6):
            flipped = leads * np.array(signs)[:, None]
            largest.append((flipped.mean(0) / (flipped.std(0, ddof=1) / 6**0.5)).max())
        assert found.p[cell] == pytest.approx(np.mean(np.array(largest) >= largest[0] - 1e-9))
    assert list(found.members) == [p > 0.05 for p in found.p]
    assert found.behind.min() == 0
    np.testing.assert_allclose(found.behind, found.means.max() - found.means)


@pytest.mark.parametrize("truth", [np.zeros(8), np.r_[0.0, np.full(7, -0.6)], -np.linspace(0, 6, 8)])
def test_the_best_cell_is_in_the_set(truth: np.ndarray) -> None:
    """Equal cells, one ahead of the others, and a slope: cell 0 is the best, or one of the best."""
    generator, n = np.random.default_rng(1), 600
    inside = sum(best_set(simulated(truth, seeds=8, generator=generator), better="higher").members[0] for _ in range(n))
    assert inside / n >= 0.95 - 3 * (0.95 * 0.05 / n) ** 0.5


def test_the_set_shrinks_with_seeds_and_finds_the_best() -> None:
    truth, generator = -np.linspace(0, 3, 8), np.random.default_rng(2)
    sizes = []
    for seeds in (5, 8, 12):
        found = [best_set(simulated(truth, seeds=seeds, generator=generator), better="higher") for _ in range(60)]
        sizes.append(np.mean([each.members.sum() for each in found]))
    assert sizes[0] > sizes[1] > sizes[2]
    assert sizes[2] < 4


def test_sides_mirror_and_what_a_seed_adds_to_all_cells_does_not_matter() -> None:
    generator = np.random.default_rng(3)
    values = simulated(-np.linspace(0, 4, 6), seeds=9, generator=generator)
    found = best_set(values, better="higher")
    np.testing.assert_array_equal(best_set(-values, better="lower").p, found.p)
    moved = values * 3 + generator.normal(0, 50, (9, 1))
    np.testing.assert_allclose(best_set(moved, better="higher").p, found.p)


def test_four_seeds_leave_no_cell_out_and_say_so() -> None:
    values = np.array([[0.0, 9.0], [0.1, 9.2], [0.2, 9.1], [0.1, 9.3]])
    found = best_set(values, better="higher")
    assert found.members.all()
    assert "4 seeds cannot leave a cell out at 95%: at least 5 are needed" in found.warnings
    assert not best_set(np.vstack([values, [0.0, 9.4]]), better="higher").members[0]
    assert best_set(values[:1], better="higher").members.all()


def test_a_cell_that_lacks_values_stays_and_excludes_no_other() -> None:
    values = np.array([[0, 1, 9], [0, 1, 9.1], [0.1, 1, 9], [0, 1.1, 9], [0, 1, 9.2], [0.1, 1, np.nan]])
    found = best_set(values, better="higher")
    assert found.members.tolist() == [False, True, True]
    assert np.isnan(found.p[2])
    assert "1 of 3 cells lack" in found.warnings[0]


def test_twin_cells_are_both_in() -> None:
    values = np.random.default_rng(5).normal(0, 1, (8, 3)) - [0, 0, 20]
    values[:, 1] = values[:, 0]
    assert best_set(values, better="higher").members.tolist() == [True, True, False]


@pytest.mark.parametrize("values", [np.zeros(4), np.zeros((4, 1)), np.zeros((0, 3))])
def test_values_of_another_shape_are_refused(values: np.ndarray) -> None:
    with pytest.raises(AnalysisError, match="two cells or more"):
        best_set(values, better="higher")


GRID = pd.DataFrame(
    list(itertools.product(["relu", "tanh"], ["none", "batch"], ["16", "64"], ["2", "4"])),
    columns=["activation", "norm", "width", "depth"],
)


@pytest.mark.parametrize(
    ("members", "terms"),
    [
        ("depth == '2'", ((("depth", "2"),),)),
        ("depth == '2' and norm == 'batch'", ((("norm", "batch"),), (("depth", "2"),))),
        (
            "depth == '2' and (norm == 'batch' or activation == 'tanh')",
            ((("depth", "2"),), (("activation", "tanh"), ("norm", "batch"))),
        ),
        ("norm == 'batch' or activation == 'tanh'", ((("activation", "tanh"), ("norm", "batch")),)),
    ],
)
def test_the_sentence_that_made_the_set_is_found(members: str, terms: tuple) -> None:
    inside = GRID.eval(members).to_numpy()
    found = common_levels(GRID, inside)
    assert found == CommonLevels(terms, int(inside.sum()), int(inside.sum()), 16)
    assert found.share == 1


def test_a_sentence_is_true_of_every_member_and_says_what_share_is_in() -> None:
    inside = GRID.eval("depth == '2' and norm == 'batch' and width == '64' and activation == 'tanh'").to_numpy()
    found = common_levels(GRID, inside)
    assert found is not None
    assert (len(found.terms), found.matching, found.share) == (3, 2, 0.5)  # four levels, of which three are joined


def test_where_nothing_can_be_said_it_is_none() -> None:
    opposite = GRID.eval(
        "(activation == 'relu' and norm == 'none' and width == '16' and depth == '2')"
        "or (activation == 'tanh' and norm == 'batch' and width == '64' and depth == '4')"
    )
    assert common_levels(GRID, opposite.to_numpy()) is None
    assert common_levels(GRID, np.ones(16, bool)) is None
    assert common_levels(GRID, np.zeros(16, bool)) is None
    with pytest.raises(AnalysisError, match="16 cells"):
        common_levels(GRID, [True])


def test_words() -> None:
    names = {("depth", "2"): "depth 2", ("activation", "tanh"): "tanh", ("norm", "batch"): "batch norm"}
    one = CommonLevels(((("depth", "2"),), (("activation", "tanh"), ("norm", "batch"))), 3, 3, 8)
    assert in_words(one, names) == "depth 2 and (tanh or batch norm)"
    assert in_words(CommonLevels(one.terms[1:], 3, 3, 8), names) == "tanh or batch norm"
