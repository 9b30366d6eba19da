"""Is there anything to measure? The certificate counts what the vital signs say."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from synthetic import grid, synthetic_records
from tuned import CLAIM, tuned_records

from alignkit.claims.analysis import Analysis, analyse
from alignkit.report.sections.vital_signs import vital_signs
from alignkit.stats.contrasts.paired import minimum_seeds
from alignkit.study.hypotheses import seeds_for_panels

HEALTHY = {"teaching_norm": 2.0, "gradient_norm": 0.1, "activation_norm": 5.0, "gradient_stability": 0.8}


def analysed(**values: Any) -> Analysis:
    records = synthetic_records(
        designs={"cells": grid({"network.norm": ["none", "batch"], "network.width": [16, 32]})},
        study={"claims": [CLAIM], "designs": {"cells": {"factors": {"network.norm": ["none", "batch"]}}}},
        rules=("bp", "dfa", "shallow"), seeds=8, steps=(0, 360),
    )  # fmt: skip
    layers = records.layers.assign(**HEALTHY, undefined=0)
    batch = layers["run_id"].str.contains("norm=batch")
    for name, value in values.items():
        layers[name] = layers[name].where(~batch, value)
    return analyse(dataclasses.replace(records, layers=layers))


def test_a_healthy_study_has_its_certificate() -> None:
    section = vital_signs(analysed())
    assert section is not None
    assert section.sentences[0] == "DFA: every cosine stands on solid ground (8 layers, 4 cells)."
    assert section.tables[0].rows == (("DFA", "solid", "8 of 8", "4"),)
    assert not any("disagree" in note for note in section.notes)


def test_what_is_not_solid_is_counted_by_rule_and_by_arm() -> None:
    section = vital_signs(analysed(gradient_stability=-0.5))
    assert section is not None
    assert section.sentences[0] == "DFA: 4 of 8 layers stand on solid ground, and in 2 of 4 cells every layer does."
    assert ("DFA", "halves of the probe disagree on the BP gradient", "4 of 8", "2") in section.tables[0].rows
    arms = section.tables[1].data.set_index("arm")["solid"].to_dict()
    assert arms == {"none": 4, "batch": 0}
    assert any("angles at h and z" in note.lower() for note in section.notes)
    assert len(section.folds[0].tables[0].rows) == 8


def test_of_a_tuned_study_each_seed_counts_at_its_best_rate() -> None:
    records = tuned_records()
    worst = records.layers["run_id"].str.endswith("@1")  # never the best rate of a seed
    healthy = records.layers.assign(**HEALTHY, undefined=0)
    healthy["gradient_stability"] = healthy["gradient_stability"].where(~worst, -0.9)
    section = vital_signs(analyse(dataclasses.replace(records, layers=healthy)))
    assert section is not None and "every cosine stands on solid ground" in section.sentences[0]


def test_seeds_that_a_panel_needs_are_told() -> None:
    analysis = analysed()
    needed = seeds_for_panels(analysis.study)
    assert needed == minimum_seeds(1) == 6
    section = vital_signs(analysis)
    assert section is not None and "need 6 seeds or more; it has 8" in section.sentences[1]


def test_records_without_norms_have_no_section() -> None:
    designs = {"cells": grid({"network.norm": ["none", "batch"]})}
    records = synthetic_records(designs=designs, steps=(0, 360))
    bare = records.layers.drop(columns=["teaching_norm", "gradient_norm"])
    assert vital_signs(analyse(dataclasses.replace(records, layers=bare))) is None


@pytest.mark.parametrize(("seeds", "few"), [(8, False), (5, True)])
def test_too_few_seeds_are_called_so(seeds: int, few: bool) -> None:
    records = tuned_records(seeds=seeds)
    layers = records.layers.assign(**HEALTHY, undefined=0)
    section = vital_signs(analyse(dataclasses.replace(records, layers=layers)))
    assert section is not None and section.sentences[-1].endswith("too few.") == few
