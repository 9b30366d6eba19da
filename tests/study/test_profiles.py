"""Profiles: a study made smaller by its own file, and known defects named."""

from __future__ import annotations

import pytest

from alignkit.errors import StudyError
from alignkit.study.defects import defects
from alignkit.study.file import load_study
from alignkit.study.plan import expand
from alignkit.study.profiles import with_profile
from alignkit.study.study import Study

RAW = {
    "name": "example",
    "rules": ["bp", "dfa"],
    "seeds": 10,
    "training": {"epochs": 50, "lr": 0.1},
    "designs": {
        "sizes": {"factors": {"network": {"width": [8, 16, 32]}, "unit": {"a": {"network.norm": "batch"}, "b": {}}}},
        "other": {"factors": {"network": {"depth": [1, 2]}}},
    },
    "claims": [
        {"name": name, "statement": name, "factor": factor, "levels": levels, "direction": "decrease", "smallest_effect": 1}
        for name, factor, levels in (("wide", "width", [8, 32]), ("deep", "depth", [1, 2]))
    ],
    "profiles": {
        "small": {
            "description": "two widths",
            "seeds": 3,
            "rules": ["dfa"],
            "options": {"training.epochs": 2, "data.shuffle_labels": True},
            "designs": ["sizes"],
            "levels": {"width": [8, 32], "unit": ["b"]},
            "claims": ["wide"],
        },
        "bad_level": {"levels": {"width": [9]}},
        "bad_factor": {"levels": {"hight": [9]}},
        "bad_design": {"designs": ["size"]},
        "bad_option": {"options": {"epochs": 3}},
        "bad_claim": {"claims": ["wise"]},
    },
}  # fmt: skip


def test_a_profile_changes_what_it_names_and_nothing_else():
    study = Study.parse(with_profile(RAW, "small", source="file"), source="file")
    assert (study.profile, study.seed_list, study.rules) == ("small", (0, 1, 2), ("dfa",))
    assert study.training.epochs == 2 and study.training.lr == 0.1 and study.data.shuffle_labels
    assert list(study.designs) == ["sizes"] and [claim.name for claim in study.claims] == ["wide"]
    assert study.designs["sizes"].factors == {"network": {"width": [8, 32]}, "unit": {"b": {}}}
    assert RAW["seeds"] == 10 and Study.parse(RAW).profile == ""


@pytest.mark.parametrize(
    "name,message",
    [
        ("smal", 'no profile "smal"; did you mean "small"'),
        ("bad_level", "levels.width: no level 9"),
        ("bad_factor", 'no factor is called "hight"'),
        ("bad_design", 'no design is called "size"; did you mean "sizes"'),
        ("bad_option", '"epochs" is no option'),
        ("bad_claim", 'no claim is called "wise"; did you mean "wide"'),
    ],
)
def test_what_a_profile_names_must_be_there(name, message):
    with pytest.raises(StudyError, match=message):
        with_profile(RAW, name, source="file")


@pytest.mark.parametrize(
    "broken,message",
    [
        ({"profiles": 3}, "profiles: expected a table"),
        ({"profiles": {"small": 3}}, "small: expected a table"),
        ({"designs": 3}, "designs: expected a table"),
        ({"designs": {"sizes": 3}}, "sizes: expected a table"),
        ({"designs": {"sizes": {"factors": {"network": {"width": 3}}}}}, "expected section.key = "),
        ({"network": 3}, "network"),
        ({"claims": [3]}, "claims"),
        ({"profiles": {"small": {"options": {"pilot.lr": [0.1]}}}}, r"the study has no \[pilot\]"),
        ({"profiles": {"small": {"options": {"tuning.lr": [0.1, 1]}}}}, r"the study has no \[tuning\]"),
        ({"profiles": {"small": {"levels": {"width": [8]}}}}, None),
    ],
)
def test_a_broken_study_is_refused_as_it_is_without_a_profile(broken, message):
    raw = {**RAW, **broken}
    if message is None:
        study = Study.parse(with_profile(raw, "small", source="file"))
        with pytest.raises(StudyError, match="If profile small left it out, let that name its claims"):
            expand(study, fingerprint=lambda data: "")
        return
    with pytest.raises(StudyError, match=message):
        with_profile(raw, "small", source="file")


def test_options_may_be_tables_of_sections():
    raw = {**RAW, "profiles": {"small": {"options": {"training": {"epochs": 3}, "training.lr": 0.2}}}}
    study = Study.parse(with_profile(raw, "small", source="file"))
    assert (study.training.epochs, study.training.lr) == (3, 0.2)


def test_a_file_does_not_say_which_profile_it_is(tmp_path):
    path = tmp_path / "study.toml"
    path.write_text('name = "x"\nprofile = "cpu"\n')
    with pytest.raises(StudyError, match="--profile"):
        load_study(path)
    path.write_text('name = "x"\n[profiles.cpu]\nseeds = 2\n')
    assert load_study(path, profile="cpu").seed_list == (0, 1)


@pytest.mark.parametrize(
    "raw,found",
    [
        ({"seeds": 2}, []),
        ({"seeds": 1}, ["one seed"]),
        ({"seeds": 1, "designs": {"d": {"factors": {"streams": {"feedback": [1, 2]}}}}}, []),
        ({"probe": {"reference_mode": "batch"}}, []),
        ({"probe": {"mode": "eval", "reference_mode": "train"}}, ["two modes"]),
        ({"probe": {"reference_masks": "none"}}, []),  # there are no masks
        ({"probe": {"reference_masks": "none"}, "network": {"signal_masked": 0.5}}, ["other masks"]),
        (
            {
                "probe": {"reference_mode": "batch"},
                "designs": {"d": {"factors": {"probe": {"mode": ["batch", "eval"]}}}},
            },
            ["two modes"],
        ),
        ({"designs": {"d": {"factors": {"how": {"a": {"probe.mode": "eval", "probe.reference_mode": "eval"}}}}}}, []),
        ({"designs": {"d": {"factors": {"probe": {"reference_mode": ["batch", "train"]}}}}}, ["two modes"]),
        (
            {"designs": {"d": {"base": {"probe.reference_masks": "independent", "network.signal_masked": 0.5}}}},
            ["other masks"],
        ),
        (
            {"designs": {"d": {"factors": {"how": {"published": {"probe.reference_mode": "eval"}, "right": {}}}}}},
            ["two modes"],
        ),
    ],
)
def test_defects_are_named_wherever_the_study_asks_for_them(raw, found):
    assert list(defects(Study.parse({"name": "x", **raw}))) == found
