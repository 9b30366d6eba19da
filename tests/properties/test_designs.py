"""Grids and fractions: every cell once, levels in balance, and aliased effects as the note says."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from alignkit.study.designs import Cell, best_generators, cells_of, declared_factors, defining_words
from alignkit.study.plan import Plan, expand
from alignkit.study.study import Study

TWO_LEVELS = {
    "network.norm": ["none", "batch"],
    "network.activation": ["tanh", "relu"],
    "network.dropout": [0.0, 0.1],
    "network.depth": [2, 3],
    "feedback.normalised": [True, False],
    "feedback.law": ["gaussian", "uniform"],
    "training.momentum": [0.0, 0.9],
}
MORE_LEVELS = {"network.width": [8, 16, 32], "training.batch_size": [16, 32, 64, 128]}
LEVELS = {**TWO_LEVELS, **MORE_LEVELS}


def study_of(*designs: dict, **options: object) -> Study:
    return Study.parse({"name": "t", "designs": {f"d{i}": design for i, design in enumerate(designs)}, **options})


def cells(design: dict) -> tuple[list[Cell], list[str], str]:
    """The cells of a design, the names of its factors of two levels, and its note."""
    study = study_of(design)
    (factors,) = declared_factors(study, "study").values()
    found, note = cells_of(study.designs["d0"], factors, "study")
    return found, [factor.name for factor in factors if len(factor.levels) == 2], note


def plan(study: Study) -> Plan:
    return expand(study, fingerprint=lambda section: section.model_dump_json())


@st.composite
def fractions(draw: st.DrawFn) -> tuple[dict, int, int]:
    """A fraction, how many factors of two levels it has, and how often those are halved."""
    two_levels = draw(st.permutations(sorted(TWO_LEVELS)))[: draw(st.integers(3, 7))]
    halvings = draw(st.integers(1, min(3, len(two_levels) - 2)))
    if 2 ** (len(two_levels) - halvings) - (len(two_levels) - halvings) - 1 < halvings:  # fewer words than factors
        halvings = 1
    names = draw(st.permutations([*two_levels, *draw(st.sets(st.sampled_from(sorted(MORE_LEVELS))))]))
    factors = {name: LEVELS[name] for name in names}
    return {"kind": "fraction", "fraction": f"1/{2**halvings}", "factors": factors}, len(two_levels), halvings


@given(fractions())
def test_a_fraction_has_its_share_of_the_cells_each_once(case: tuple[dict, int, int]) -> None:
    design, _, halvings = case
    found, _, _ = cells(design)
    whole = math.prod(len(levels) for levels in design["factors"].values())
    assert len(found) == whole / 2**halvings == len({tuple(cell.levels.items()) for cell in found})
    assert {len(cell.levels) for cell in found} == {len(design["factors"])}


@given(fractions())
def test_a_fraction_has_every_level_and_every_pair_of_levels_equally_often(case: tuple[dict, int, int]) -> None:
    found, _, _ = cells(case[0])
    factors = list(found[0].levels)
    for names in itertools.combinations(factors, 2):
        counts = Counter(tuple(cell.levels[name] for name in names) for cell in found)
        possible = math.prod(len({cell.levels[name] for cell in found}) for name in names)
        assert len(counts) == possible and len(set(counts.values())) == 1


@given(fractions())
def test_the_effects_that_a_fraction_cannot_tell_from_the_mean_are_its_defining_words(
    case: tuple[dict, int, int],
) -> None:
    design, count, halvings = case
    found, two_levels, note = cells(design)
    signs = np.array(
        [[1 if cell.levels[name] == found[0].levels[name] else -1 for name in two_levels] for cell in found]
    )
    constant = {
        frozenset(some)
        for size in range(1, count + 1)
        for some in itertools.combinations(range(count), size)
        if len(set(signs[:, some].prod(axis=1).tolist())) == 1
    }
    words = [(*word, count - halvings + i) for i, word in enumerate(best_generators(count, halvings))]
    assert constant == set(defining_words(words)) and len(constant) == 2**halvings - 1
    assert f"resolution {min(map(len, constant))};" in note
    relations = note.partition("constant: ")[2].split(", ")
    assert {frozenset(map(two_levels.index, relation.split("·"))) for relation in relations} <= constant


@given(st.sets(st.sampled_from(sorted(LEVELS)), min_size=1, max_size=4))
def test_a_grid_has_every_combination_once(names: set[str]) -> None:
    factors = {name: LEVELS[name] for name in sorted(names)}
    found, _, _ = cells({"factors": factors})
    assert Counter(tuple(cell.overrides[name] for name in factors) for cell in found) == Counter(
        itertools.product(*factors.values())
    )


@st.composite
def some_designs(draw: st.DrawFn) -> list[dict]:
    """Grids and factors one at a time, over few options: many of their cells are the same."""
    options = st.sampled_from(["network.width", "network.norm", "feedback.law"])
    factors = st.dictionaries(options, st.none(), min_size=1, max_size=2).map(
        lambda names: {name: draw(st.lists(st.sampled_from(LEVELS[name]), min_size=1, unique=True)) for name in names}
    )
    kinds = st.sampled_from(["grid", "one_at_a_time"])
    return draw(st.lists(st.fixed_dictionaries({"kind": kinds, "factors": factors}), min_size=1, max_size=3))


@given(some_designs(), st.lists(st.integers(0, 99), min_size=1, max_size=2, unique=True))
def test_designs_that_share_a_cell_share_its_runs(designs: list[dict], seeds: list[int]) -> None:
    study = study_of(*designs, seeds=seeds, rules=["bp", "dfa"])
    found = plan(study).runs
    assert len({run.run_id for run in found}) == len(found)
    dfa = [run for run in found if run.rule == "dfa"]
    settings = {(run.settings.model_dump_json(), run.seed) for run in dfa}
    assert len(settings) == len(dfa) and {run.bp_run_id for run in dfa} <= {run.run_id for run in found}
    for name in study.designs:
        alone = study_of(designs[int(name[1:])], seeds=seeds, rules=["bp", "dfa"])
        assert {run.run_id for run in found if name in run.designs} == {run.run_id for run in plan(alone).runs}
