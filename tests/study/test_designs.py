"""Cells, fractions and run ids."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from plans import plan

from alignkit.errors import StudyError
from alignkit.study.designs import _word_lengths, best_generators, column_name, defining_words
from alignkit.study.plan import expand
from alignkit.study.study import Study
from alignkit.study.watch import watched

TWO = {"network.norm": ["none", "batch"], "network.dropout": [0.0, 0.1], "network.activation": ["tanh", "relu"]}


def test_a_grid_crosses_its_factors():
    found = plan({"factors": {**TWO, "network.width": [8, 16, 32]}}, seeds=2)
    assert len(found.runs) == 2 * 2 * 2 * 3 * 2 and found.cells == 24
    assert found.factors == ("norm", "dropout", "activation", "width")
    assert len({run.run_id for run in found.runs}) == len(found.runs)


def test_one_at_a_time_has_the_base_and_each_level():
    found = plan(
        {"kind": "one_at_a_time", "factors": {"network.norm": ["none", "batch"], "network.width": [32, 64, 128]}}
    )
    assert [(run.levels["norm"], run.levels["width"]) for run in found.runs] == [
        ("none", 64),
        ("batch", 64),
        ("none", 32),
        ("none", 128),
    ]


def test_listed_cells_are_run_as_listed():
    found = plan(
        {"kind": "cells", "cells": [{"network": {"width": 8}}, {"network.width": 16, "network.norm": "batch"}]}
    )
    assert [run.levels for run in found.runs] == [{"width": 8, "norm": "none"}, {"width": 16, "norm": "batch"}]


def test_named_levels_set_several_options():
    levels = {"tanh": {"network.activation": "tanh"}, "leaky": {"network": {"activation": "leaky_relu", "slope": 0.1}}}
    found = plan({"factors": {"unit": levels}})
    assert [(run.levels["unit"], run.settings.network.activation) for run in found.runs] == [
        ("tanh", "tanh"),
        ("leaky", "leaky_relu"),
    ]


def test_a_cell_keeps_the_names_that_it_was_declared_with():
    levels = {"base": {}, "bn": {"network.norm": "batch"}, "relu": {"network.activation": "relu"}}
    assert [run.levels["practice"] for run in plan({"factors": {"practice": levels}}).runs] == ["base", "bn", "relu"]
    nested = {
        "leaky": {"network.activation": "leaky_relu"},
        "half": {"network.activation": "leaky_relu", "network.slope": 0.5},
    }
    assert [run.levels["unit"] for run in plan({"factors": {"unit": nested}}).runs] == ["leaky", "half"]
    sizes = {"small": {"network.width": 8}, "large": {"network.width": 64}}
    assert [run.levels["size"] for run in plan({"factors": {"size": sizes}}).runs] == ["small", "large"]


def test_another_design_s_level_is_the_most_specific_that_fits():
    units = {
        "leaky": {"network.activation": "leaky_relu"},
        "half": {"network.activation": "leaky_relu", "network.slope": 0.5},
    }
    raw = {
        "name": "t", "seeds": 1, "rules": ["dfa"], "network": {"activation": "leaky_relu", "slope": 0.5},
        "designs": {"a": {"factors": {"unit": units}}, "b": {"factors": {"network.width": [8]}}},
    }  # fmt: skip
    found = expand(Study.parse(raw), fingerprint=lambda section: "x").runs
    assert [run.levels["unit"] for run in found if "b" in run.designs] == ["half"]


def test_a_level_that_sets_nothing_undoes_no_other_design_s():
    raw = {
        "name": "t", "seeds": 1, "rules": ["dfa"], "designs": {
            "a": {"factors": {"unit": {"relu": {"network.activation": "relu"}, "gelu": {"network.activation": "gelu"}}}},
            "b": {"factors": {"unit": {"as_it_is": {}}}},
        },
    }  # fmt: skip
    found = expand(Study.parse(raw), fingerprint=lambda section: "x").runs
    assert [run.levels["unit"] for run in found if "a" in run.designs] == ["relu", "gelu"]
    assert [run.levels["unit"] for run in found if run.designs == ("b",)] == ["as_it_is"]


def test_a_level_means_one_thing_in_all_designs():
    raw = {
        "name": "t", "designs": {
            "a": {"factors": {"unit": {"x": {"network.activation": "relu"}}}},
            "b": {"factors": {"unit": {"x": {"network.activation": "gelu"}}}},
        },
    }  # fmt: skip
    with pytest.raises(StudyError, match=r"designs\.b: unit = x means something else in designs\.a"):
        expand(Study.parse(raw), fingerprint=lambda section: "x")


def test_lists_are_levels_too():
    found = plan({"factors": {"network.widths": [[8, 2, 8], [8, 8, 8]]}})
    assert [run.levels["widths"] for run in found.runs] == ["8-2-8", "8-8-8"]


def test_a_design_s_base_and_the_union_of_designs():
    raw = {
        "name": "t", "seeds": 1, "rules": ["dfa"],
        "designs": {
            "a": {"factors": {"network.width": [8, 16]}},
            "b": {"factors": {"network.depth": [1, 3]}, "base": {"network.width": 16}},
        },
    }  # fmt: skip
    found = expand(Study.parse(raw), fingerprint=lambda section: "x").runs
    assert [(run.levels["width"], run.levels["depth"], run.designs) for run in found] == [
        (8, 3, ("a",)), (16, 3, ("a", "b")), (16, 1, ("b",)),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "factors,halvings,resolution", [(3, 1, 3), (4, 1, 4), (7, 1, 7), (7, 2, 4), (7, 3, 4), (6, 2, 4), (5, 2, 3)]
)
def test_fractions_have_the_best_known_resolution(factors, halvings, resolution):
    basic = factors - halvings
    words = [tuple(sorted((*word, basic + i))) for i, word in enumerate(best_generators(factors, halvings))]
    assert min(len(word) for word in defining_words(words)) == resolution


@pytest.mark.parametrize("denominator", [2, 4])
def test_a_fraction_is_balanced_and_orthogonal(denominator):
    factors = {
        **TWO,
        "network.depth": [2, 3],
        "network.width": [8, 16],
        "feedback.normalised": [True, False],
        "network.initialisation": ["pytorch", "zero"],
        "training.batch_size": [16, 32, 64],
    }
    found = plan({"kind": "fraction", "fraction": f"1/{denominator}", "factors": factors})
    assert len(found.runs) == 2**7 // denominator * 3
    two_level = [name for name in found.factors if name != "batch_size"]
    columns = np.array(
        [[1 if run.levels[name] == found.runs[0].levels[name] else -1 for name in two_level] for run in found.runs]
    )
    assert (columns.sum(0) == 0).all()
    assert np.array_equal(columns.T @ columns, len(columns) * np.eye(7))
    assert "resolution" in found.notes[0] and "constant" in found.notes[0]


def test_claims_are_about_what_is_measured_and_run():
    claim = {
        "name": "c",
        "statement": "s",
        "factor": "width",
        "levels": [8, 16],
        "direction": "increase",
        "smallest_effect": 1,
    }
    factors = {"factors": {"network.width": [8, 16]}}
    plan(factors, claims=[claim])
    with pytest.raises(
        StudyError, match=r'claim c: common_mode is not measured\. Add "common_mode" to probe\.measures'
    ):
        plan(factors, claims=[{**claim, "response": "common_mode"}], probe={"measures": ["signal"]})
    with pytest.raises(StudyError, match=r"only measures of layers have an excess"):
        plan(factors, claims=[{**claim, "response": "test_accuracy_excess"}])
    plan({"factors": {"network.dropout": [0.0, 0.5]}}, claims=[{**claim, "factor": "dropout", "levels": [0, 0.5]}])


BAD = {
    "factor the network lacks": ({"factors": {"network.channels": [[4], [8]]}}, r'designs\.d: network\.channels: network has no such key'),
    "level out of range": ({"factors": {"network.dropout": [0.0, 1.5]}}, r"designs\.d: network\.dropout: expected less than 1; got 1\.5"),
    "unknown section": ({"factors": {"netwrok.width": [1, 2]}}, r'expected "section\.key" = \[levels\]'),
    "not a list": ({"factors": {"network.width": 8}}, r"factors\.network\.width: expected section\.key = \[level, level, …\]; got 8"),
    "no level": ({"factors": {"network.width": []}}, r"expected section\.key = \[level, level, …\]; got \[\]"),
    "too many listed cells": (
        {"kind": "cells", "cells": [{"network.width": 8}] * 100_001}, "designs.*: more than 100,000 cells. Take fewer$",
    ),
    "too many levels one at a time": (
        {"kind": "one_at_a_time", "factors": {"training.lr": [i / 7 for i in range(1, 100_001)]}}, "more than 100,000 cells",
    ),
    "a level twice among many": (
        {"factors": {"training.lr": [*(i / 7 for i in range(1, 20_000)), 1.0]}}, r"lr names a level twice: 1\.0",
    ),
    "twice": ({"factors": {"network.width": [8, 8]}}, r"width names a level twice"),
    "too few for a fraction": ({"kind": "fraction", "factors": {"network.width": [8, 16], "network.depth": [1, 2]}}, r"needs at least 3 factors of two levels; got 2"),
    "cells of a grid": ({"cells": [{"network.width": 8}]}, r'cells belong to kind = "cells"'),
    "no cells": ({"kind": "cells"}, r'kind = "cells" needs at least one cell'),
    "two factors for one option": ({"factors": {"network.width": [8, 16], "w": {"a": {"network.width": 4}, "b": {"network.width": 5}}}}, r"width and w both set network\.width"),
    "a factor named like a column": ({"factors": {"seed": {"a": {"network.width": 4}, "b": {"network.width": 5}}}}, r'"seed" is a column of the tables'),
    "levels equal by value": ({"factors": {"network.dropout": [0, 0.0]}}, r"dropout names a level twice"),
    "texts that differ in spelling": ({"factors": {"slope": {"1.1": {"network.width": 4}, "1.10": {"network.width": 5}}}}, r"designs\.d: slope: expected levels .*spelling; got '1\.1' and '1\.10'"),
    "truths that differ in spelling": ({"factors": {"bias": {"true": {"network.width": 4}, "True": {"network.width": 5}}}}, r"spelling; got 'true' and 'True'"),
    "whole numbers that no float tells apart": ({"factors": {"streams.order": [2**53, 2**53 + 1]}}, r"spelling; got 9007199254740992 and 9007199254740993"),
    "factors of listed cells": ({"kind": "cells", "cells": [{"network.width": 8}], "factors": {"network.depth": [1, 2]}}, r"factors belong to the other kinds"),
    "too many cells": ({"factors": {f"streams.{s}": list(range(40)) for s in ("initialisation", "feedback", "order", "dropout")}}, r"more than 100,000 cells"),
    "bad base": ({"base": {"width": 3}}, r'"width" is no option; expected section\.key'),
}  # fmt: skip


@pytest.mark.parametrize("design,message", BAD.values(), ids=BAD)
def test_bad_designs_are_named(design, message):
    with pytest.raises(StudyError, match=message):
        plan(design)


def test_levels_of_two_designs_are_told_apart_by_more_than_spelling():
    designs = {
        name: {"factors": {"unit": {level: {"network.width": 8}}}} for name, level in (("a", "1.1"), ("b", "1.10"))
    }
    with pytest.raises(StudyError, match=r"designs\.b: unit: .*got '1\.1' and '1\.10'"):
        expand(Study.parse({"name": "t", "designs": designs}), fingerprint=str)


def test_many_runs_are_refused_before_any_is_planned():
    with pytest.raises(StudyError, match=r"expected at most 1,000,000 runs; got 1,000,001 with 1,000,001 seeds and 1"):
        plan({}, seeds=1_000_001)
    with pytest.raises(StudyError, match="more than 100,000 cells"):  # although the first design is small
        expand(
            Study.parse(
                {
                    "name": "t",
                    "designs": {"a": {}, "b": {"factors": {"training.lr": [i / 7 for i in range(1, 100_002)]}}},
                }
            ),
            fingerprint=lambda section: pytest.fail("something was planned"),
        )


def test_who_waits_for_a_plan_is_told_how_far_it_is():
    told = []
    with watched(lambda what, done, total: told.append((what, done, total))):
        plan({"factors": {"network.width": [8, 16, 32]}})
    assert told == [("Planning cells", done, 3) for done in range(3)]
    plan({"factors": {"network.width": [8, 16, 32]}})
    assert len(told) == 3


def test_word_lengths_are_those_of_the_defining_words():
    for factors, halvings in ((4, 1), (5, 2), (7, 3), (8, 4)):
        basic = factors - halvings
        words = [(*word, basic + i) for i, word in enumerate(best_generators(factors, halvings))]
        assert sorted(_word_lengths(words).tolist()) == sorted(map(len, defining_words(words)))


def test_columns_are_short_where_that_is_clear():
    names = ["network.width", "training.lr", "feedback.law", "streams.order", "data.shuffle_labels"]
    assert [column_name(name) for name in names] == [
        "width",
        "lr",
        "feedback_law",
        "streams_order",
        "data_shuffle_labels",
    ]


def test_products_of_words():
    words = [(0, 1, 2), (2, 3, 4)]
    assert frozenset({0, 1, 3, 4}) in defining_words(words)
    assert len(defining_words(words)) == math.comb(2, 1) + 1
    assert list(itertools.chain(defining_words([(0, 1)]))) == [frozenset({0, 1})]
