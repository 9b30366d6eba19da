"""Whole networks that may be the best, found in records whose truth is known."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from synthetic import grid, synthetic_records, unfinished_records

from alignkit.claims.configurations import (
    Configurations,
    configuration_entries,
    configurations,
    configurations_markdown,
)
from alignkit.claims.wording import to_json
from alignkit.records.store import Records

CELLS = grid({
    "network.activation": ["relu", "tanh"], "network.norm": ["none", "batch"], "network.width": [16, 64],
})  # fmt: skip
FACTORS = {"network.activation": ["relu", "tanh"], "network.norm": ["none", "batch"], "network.width": [16, 64]}


def known(seeds: int = 9, **options: Any) -> Records:
    """Aligned best with batch norm, whatever else; most accurate with tanh and 64 units."""
    return synthetic_records(
        designs={"practices": CELLS},
        study={"designs": {"practices": {"factors": FACTORS}}},
        angle_effects={"network.norm": -8.0},
        accuracy_effects={"network.activation": 6.0, "network.width": 3.0},
        seeds=seeds,
        **{"seed_by_factor_sd": 0.3, "residual_sd": 0.8, **options},
    )


@pytest.fixture(scope="module")
def records() -> Records:
    return known()


@pytest.fixture(scope="module")
def found(records: Records) -> Configurations:
    (one,) = configurations(records)
    return one


def test_the_best_networks_are_named_by_what_they_share(found: Configurations) -> None:
    aligned, accurate = found.rankings
    truth = found.levels["norm"] == "batch"
    assert (aligned.response, accurate.response) == ("signal_angle_deg", "test_accuracy")
    np.testing.assert_array_equal(aligned.found.members, truth)
    np.testing.assert_array_equal(
        accurate.found.members, (found.levels["activation"] == "tanh") & (found.levels["width"] == "64")
    )
    assert found.sentences() == [
        "Of 8 networks, 4 may be the best aligned (95%): the ones with norm batch.",
        "Of 8 networks, 2 may be the most accurate (95%): the ones with tanh and width 64.",
        "1 of them may be the best one in both (at least 90%): tanh, norm batch, width 64.",
    ]


def test_every_cell_has_a_row(found: Configurations, records: Records) -> None:
    frame = found.to_frame()
    assert len(frame) == 8
    assert frame["both_may_be_best"].sum() == 1
    row = frame[frame["both_may_be_best"]].iloc[0]
    own = records.runs[(records.runs["rule"] == "dfa") & (records.runs["norm"] == "batch")]
    own = own[(own["activation"] == "tanh") & (own["width"] == 64)]
    assert row["test_accuracy"] == pytest.approx(100 * own["test_accuracy"].mean())
    assert row["signal_angle_deg_behind"] >= 0
    assert set(frame["design"]) == {"practices"}


def test_bp_and_single_cells_are_not_ranked() -> None:
    assert configurations(synthetic_records(designs={"one": [{"network.width": 8}]}, seeds=3)) == []
    two = synthetic_records(designs={"two": [{"network.width": 8}, {"network.width": 16}]}, seeds=6)
    assert configurations(two) == []
    assert configuration_entries(two) == []
    assert configurations_markdown(two) == ""


def test_three_seeds_leave_none_out_and_say_why() -> None:
    (one,) = configurations(known(seeds=3))
    assert one.sentences()[0] == "Any of the 8 networks may be the best aligned: 3 seeds leave none out."
    assert any("at least 5 are needed" in warning for warning in one.warnings)


def test_a_diverged_network_counts_as_one_that_did_not_align() -> None:
    (one,) = configurations(known(diverge=(("network.width", 64),)))
    aligned = one.rankings[0]
    assert not np.isnan(aligned.found.means).any()
    batch = one.levels["norm"] == "batch"
    wide = one.levels["width"] == "64"
    assert aligned.found.means[batch & wide].min() > 64 > 60 > aligned.found.means[batch & ~wide].max()


def test_unfinished_networks_stay_in_the_set(records: Records) -> None:
    gone = (records.runs["rule"] == "dfa") & (records.runs["norm"] == "none") & (records.runs["seed"] == 0)
    (one,) = configurations(unfinished_records(records, gone))
    aligned = one.rankings[0].found
    assert aligned.members[one.levels["norm"] == "none"].all()
    assert np.isnan(aligned.p[one.levels["norm"] == "none"]).all()
    assert any("4 of 8 cells lack a value" in warning for warning in one.warnings)


def with_held_out(judged: Records, apart: Records) -> Records:
    return dataclasses.replace(judged, held_out=apart)


def test_held_out_seeds_confirm_the_set_or_do_not(records: Records) -> None:
    (one,) = configurations(with_held_out(records, known(seeds=4, noise=7)))
    aligned = one.rankings[0]
    assert (aligned.n_held_out, aligned.inside, aligned.best_inside) == (4, 4, True)
    assert "On 4 held-out seeds 4 of the 4 are within 2° of the best one there, which is among them." in one.sentences()

    other = synthetic_records(
        designs={"practices": CELLS}, angle_effects={"network.norm": 8.0}, seeds=4, residual_sd=0.5
    )
    (one,) = configurations(with_held_out(records, other))
    aligned = one.rankings[0]
    assert (aligned.inside, aligned.best_inside) == (0, False)
    assert "0 of the 4 are within 2° of the best one there, which is not among them." in " ".join(one.sentences())


def test_entries_are_ready_for_json(records: Records) -> None:
    (entry,) = json.loads(to_json(configuration_entries(records)))
    assert entry["may_be_best"]["both"] == [{"activation": "tanh", "norm": "batch", "width": "64"}]
    assert entry["common_levels"]["signal_angle_deg"] == {
        "all_of_any_of": [[{"factor": "norm", "level": "batch"}]], "matching": 4, "members": 4, "share": 1.0,
    }  # fmt: skip
    assert entry["networks"] == 8
    assert "Of 8 networks, 4 may be the best aligned" in configurations_markdown(records)


def test_a_notebook_shows_the_members_and_a_line_elsewhere(found: Configurations) -> None:
    html = found._repr_html_()
    assert html.count("<tr>") == 1 + 5  # four aligned, two accurate, one of them both
    assert "Of 8 networks" in html
    assert "\n" not in repr(found)
    assert repr(found).startswith("Configurations(practices, DFA: Of 8 networks")


def test_one_best_network_is_in_the_set_whatever_the_noise() -> None:
    """Through the whole path: the true best cell is in the set in nearly all of some studies."""
    inside = 0
    for noise in range(30):
        (one,) = configurations(
            synthetic_records(
                designs={"practices": CELLS}, rules=("dfa",), seeds=6, noise=noise, steps=(0, 360),
                angle_effects={"network.norm": -1.0, "network.activation": -0.5, "network.width": -0.1},
            )
        )  # fmt: skip
        frame = one.levels
        best = (frame["norm"] == "batch") & (frame["activation"] == "tanh") & (frame["width"] == "64")
        inside += bool(one.rankings[0].found.members[best][0])
    assert inside >= 26
    assert isinstance(one.to_frame(), pd.DataFrame)
