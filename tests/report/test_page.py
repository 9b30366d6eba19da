"""The report: whole for any study, the same bytes for the same records, and honest about gaps."""

from __future__ import annotations

import dataclasses
import json
import re
import tomllib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from synthetic import full_study, grid, synthetic_records

from alignkit.claims import revision
from alignkit.claims.analysis import analyse
from alignkit.claims.verdicts import evaluate
from alignkit.columns import MEASURE_COLUMNS
from alignkit.records.store import Records
from alignkit.report.contents import ALWAYS
from alignkit.report.method import facts
from alignkit.report.page import write_report
from alignkit.report.svg import inline_svg
from alignkit.report.tables import latex_text
from alignkit.study.toml_text import toml_text
from alignkit.text import level, number, p_text, reading, row_label

pytestmark = pytest.mark.usefixtures("without_pdf")

CLAIM: dict[str, Any] = {
    "name": "width", "statement": "Width <b>helps</b>", "practice": "Go wide & deep", "factor": "width", "levels": [8, 32],
    "direction": "decrease", "smallest_effect": 1.0,
}  # fmt: skip
BARE = {"study": [{}]}
TWO = {"widths": grid({"network.width": [8, 32]})}
QUICK: dict[str, Any] = {"seeds": 3, "steps": (0, 45, 360)}
VOID = {"meta", "br", "link", "img", "hr", "input"}


class Page(HTMLParser):
    """Checks nesting, and gathers ids, references and visible text."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.words: list[str] = []
        self.rows: list[list[str]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(str(value))
            if name in ("href", "src", "xlink:href"):
                self.references.append(str(value))
        if tag == "tr":
            self.rows.append([])

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes <{self.open[-1:]}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if "style" in self.open or "pre" in self.open:
            return
        self.words.append(data)
        if self.rows and {"td", "th"} & set(self.open):
            self.rows[-1].append(data.strip())


def check(path: Path) -> tuple[str, Page]:
    """A page that any browser reads without a network."""
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert text.startswith("<!DOCTYPE html>") and '<html lang="en">' in text
    assert len(page.ids) == len(set(page.ids)), "ids repeat"
    for reference in page.references:
        if reference.startswith("#"):
            assert reference[1:] in page.ids, reference
        else:
            assert reference.startswith("data:") or (path.parent / reference).is_file(), reference
    for name in re.findall(r"url\(#([^)]+)\)", text):
        assert name in page.ids
    assert "http" not in re.sub(r"<pre.*?</pre>", "", text, flags=re.DOTALL)
    assert "<script" not in text
    visible = " ".join(page.words)
    assert not re.search(r"\b(nan|NaN|None|inf|NaT)\b", visible)
    return text, page


@pytest.fixture(scope="module")
def records() -> Records:
    return full_study()


@pytest.fixture(scope="module")
def written(records: Records, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(records, tmp_path_factory.mktemp("report"))


def test_the_report_is_whole(written: Path) -> None:
    text, _ = check(written)
    questions = [question.name for question in ALWAYS]
    order = [
        "answers",
        "overview",
        "verdicts",
        "recommendations",
        "figures",
        *questions,
        "effects",
        "final",
        "method",
        "diagnostics",
        "study",
    ]
    sections = re.findall(r'<section id="([^"]+)"', text)
    assert sections == [name for name in order if name in sections]
    assert set(order) - set(sections) <= set(questions) and {"model", "power"} <= set(sections)
    assert "&lt;synthetic&gt;" in text and "<synthetic>" not in text
    assert "Of 5 confirmatory claims, 1 is supported, 1 is refuted, 2 find" in text
    assert "1,370 runs: 69 cells, 10 seeds, rules BP and DFA." in text
    names = ["alignment_over_training", "alignment_by_factor", "width_curve", "accuracy_gap", "effects"]
    drawn = re.findall(r'<figure id="figure-([^"]+)"', text)
    assert drawn[: len(names)] == names
    assert all(name.startswith(tuple(questions)) for name in drawn[len(names) :])
    assert re.findall(r"<strong>Figure (\d+)", text) == [str(number + 1) for number in range(len(drawn))]
    for name in drawn:
        assert (written.parent / "figures" / f"{name}.svg").is_file() and (
            written.parent / "figures" / f"{name}.pdf"
        ).is_file()
    tables = {path.name for path in (written.parent / "tables").iterdir()}
    assert {"verdicts.csv", "verdicts.tex", "effects_practices.csv", "final_measures.tex", "diverged.csv"} <= tables
    entries = json.loads((written.parent / "recommendations.json").read_text(encoding="utf-8"))
    whole = [entry for entry in entries if entry.get("kind") == "configurations"]
    assert {entry["design"] for entry in whole} == {"practices", "width_curve"}
    assert entries[len(entries) - len(whole) :] == whole
    assert all({"practice", "effect", "interval", "verdict", "scope"} <= set(e) for e in entries if e not in whole)
    assert text.count('role="img"') == len(drawn) and text.count("aria-label=") >= len(drawn)
    assert "2 runs of 1,370 diverged" in text and "confounded with the learning rate" in text


@pytest.mark.slow
def test_the_lead_and_the_first_figure_tell_one_mean(records: Records, written: Path) -> None:
    """Networks of several depths: a mean over layers' lines is another one."""
    text, page = check(written)
    final = analyse(records).mean("dfa", "signal_angle_deg")
    assert final is not None
    mean = level(final.estimate, "signal_angle_deg")
    assert f"to {mean} on average" in text and re.search(rf"is {mean} \[[^]]*\] on average over the 64 cells", text)


def test_the_p_beside_a_verdict_is_of_the_test_that_decided(records: Records, written: Path) -> None:
    _, page = check(written)
    shown = [row[-2] for row in page.rows if any("equivalence" in cell for cell in row[-2:])]
    equivalent = [verdict for verdict in evaluate(records) if verdict.verdict == "equivalent"]
    assert equivalent and shown == [f"{p_text(verdict.p_equivalence_adjusted)} (equivalence)" for verdict in equivalent]


def test_what_a_rule_does_not_use_has_no_effects(tmp_path: Path) -> None:
    records = synthetic_records(designs=TWO, rules=("bp", "dfa", "shallow"), **QUICK)
    runs = records.runs.assign(
        test_accuracy=records.runs["test_accuracy"].where(records.runs["rule"] != "shallow", 0.5)
    )
    text, page = check(write_report(dataclasses.replace(records, runs=runs), tmp_path))
    assert "Design widths, shallow: runs are the same at all levels of width, which are left out." in text
    assert not any(row[:1] == ["shallow"] and "width" in row[1] for row in page.rows if len(row) > 1)


@pytest.mark.slow
def test_the_same_records_give_the_same_bytes(tmp_path_factory: pytest.TempPathFactory) -> None:
    claims = [{**CLAIM, "name": "a"}, {**CLAIM, "name": "b", "response": "test_accuracy"}]
    records = synthetic_records(designs=TWO, seeds=7, steps=(0, 360), rules=("dfa",), study={"claims": claims})
    written, tmp_path = write_report(records, tmp_path_factory.mktemp("a")), tmp_path_factory.mktemp("b")
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "alignment_by_factor_fa.svg").write_text("of an earlier report")
    (tmp_path / "figures" / "mine.svg").write_text("the user's own")
    write_report(records, tmp_path)
    assert not (tmp_path / "figures" / "alignment_by_factor_fa.svg").exists()
    (tmp_path / "figures" / "mine.svg").unlink()
    first = {
        path.relative_to(written.parent): path.read_bytes() for path in written.parent.rglob("*") if path.is_file()
    }
    second = {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert first == second


ODD: dict[str, tuple[dict[str, Any], list[str]]] = {
    "no factors": ({"designs": BARE}, ["no design varies a factor"]),
    "bp alone": ({"designs": TWO, "rules": ("bp",)}, ["Only BP ran", "it needs BP and another rule"]),
    "no bp": (
        {"designs": TWO, "rules": ("dfa",)},
        ["it needs BP and another rule", "no design has three or more widths"],
    ),
    "three rules": ({"designs": TWO, "rules": ("bp", "dfa", "fa", "shallow")}, ["All effects", "FA"]),
    "shallow alone": ({"designs": TWO, "rules": ("shallow",)}, ["No run has a defined alignment measure"]),
    "one seed": (
        {"designs": TWO, "seeds": 1, "study": {"claims": [CLAIM]}},
        ["With one seed", "Width &lt;b&gt;helps&lt;/b&gt;"],
    ),
    "too few seeds": (
        {"designs": TWO, "study": {"claims": [CLAIM]}},
        ["needs ≥ 6 seeds", "no evidence", "Go wide &amp; deep"],
    ),
    "diverged": ({"designs": TWO, "diverge": (("network.width", 32),), "seeds": 2}, ["2 runs of 8 diverged"]),
    "no measures": ({"designs": TWO, "measures": ()}, ["No run has a defined alignment measure"]),
    "gradient only": ({"designs": TWO, "measures": ("gradient_cosine",)}, ["cosine with the BP gradient"]),
    "regression": ({"designs": TWO, "regression": True}, ["BP twin that has an accuracy; got none"]),
    "one checkpoint": ({"designs": TWO, "steps": (360,)}, ["at least two checkpoints"]),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_studies(name: str, tmp_path: Path) -> None:
    options, expected = ODD[name]
    text, _ = check(write_report(synthetic_records(**{**QUICK, **options}), tmp_path))
    for phrase in expected:
        assert phrase in text or phrase.replace("'", "&#39;") in text, phrase


def test_incomplete_records_say_so(tmp_path: Path) -> None:
    records = dataclasses.replace(synthetic_records(designs=BARE, **QUICK), missing=7)
    text, _ = check(write_report(records, tmp_path))
    assert "7 planned runs still missing" in text and "preliminary" in text


def test_effects_that_cannot_be_had_say_why(tmp_path: Path) -> None:
    """Width and depth change together: neither has an effect of its own, and the page says so of both."""
    cells = [{"network.width": width, "network.depth": depth} for width, depth in ((8, 2), (32, 3))]
    text, _ = check(write_report(synthetic_records(designs={"mixed": cells}, **QUICK), tmp_path))
    assert "Design mixed, DFA: no effect of width, depth can be had, since none of them changes alone." in text


def test_undefined_samples_are_reported(tmp_path: Path) -> None:
    records = synthetic_records(designs=BARE, **QUICK)
    layers = records.layers.assign(undefined=[3, *[0] * (len(records.layers) - 1)])
    text, _ = check(write_report(dataclasses.replace(records, layers=layers), tmp_path))
    assert "3 samples had a zero vector" in text


def test_definitions_are_those_of_recorded_measures(tmp_path: Path) -> None:
    text, _ = check(write_report(synthetic_records(designs=BARE, measures=("signal_cosine",), **QUICK), tmp_path))
    recorded = re.findall(r"<dt><code>(\w+)</code></dt>", text)
    assert recorded == ["signal_cosine"] and set(recorded) < set(MEASURE_COLUMNS)


def test_the_method_says_of_products_of_less_precision(records: Records) -> None:
    def training(**options: str) -> str:
        study = records.study.model_copy(update={"training": records.study.training.model_copy(update=options)})
        return dict(facts(analyse(dataclasses.replace(records, study=study))))["Training"]

    assert "factors" not in training()
    assert "float32 (products in training steps of bf16 factors)" in training(matmul_precision="bf16")


def test_svg_ids_are_made_unique_and_prologue_goes() -> None:
    svg = b'<?xml version="1.0"?>\n<svg width="1pt" viewBox="0 0 1 1"><metadata>x</metadata><g id="a" clip-path="url(#a)"/></svg>'
    text = inline_svg(svg, name="f", description='"quoted" & <tagged>')
    assert text.startswith(
        '<svg class="chart" role="img" aria-label="&quot;quoted&quot; &amp; &lt;tagged&gt;" viewBox="0 0 1 1">'
    )
    assert 'id="f-a"' in text and "url(#f-a)" in text and "metadata" not in text


def test_options_are_toml_that_parses_back() -> None:
    options = {
        "name": "x", "seeds": [0, 1], "designs": {"d": {"factors": {"network.width": [8, 16]}, "cells": [{"a b": True}]}},
        "claims": [{"name": 'a "b"', "levels": ["µ", 2.5]}],
    }  # fmt: skip
    assert tomllib.loads(toml_text(options)) == options


def test_words() -> None:
    assert row_label("feedback_angle_deg", ("0", "85")) == "feedback angle: 0° → 85°"
    assert (reading(95.934, "test_accuracy"), reading(-3.2, "accuracy_gap")) == ("95.93%", "\N{MINUS SIGN}3.20 points")
    assert (p_text(0.99999), p_text(0.01), p_text(1e-9)) == ("1", ".010", "<.001")
    assert number(-0.001, 1) == "0.0" and number(1234.5, 0) == "1,234"
    assert latex_text("50% of {a_b} & \N{MINUS SIGN}1") == r"50\% of \{a\_b\} \& $-$1"


def test_verdicts_that_another_question_turns_over_are_announced(records: Records, written: Path) -> None:
    assert any(claim.factor in revision.FACTORS for claim in records.study.claims)
    assert revision.NOTICE[0] in written.read_text(encoding="utf-8")
    elsewhere = [claim.model_copy(update={"response": "gradient_cosine"}) for claim in records.study.claims]
    assert revision.notice(elsewhere) == ()
