"""The examples that users read: docstrings, and the README's blocks, in a folder with the records that they read."""

from __future__ import annotations

import doctest
import importlib
import re
import runpy
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import alignkit
from alignkit.study.study import Study

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
WITH_EXAMPLES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in (ROOT / "alignkit").rglob("*.py")
    if ">>> " in path.read_text(encoding="utf-8")
)
COMMANDS = [
    command.strip().removeprefix(".venv/bin/")
    for command in re.findall(r"(?m)(?:^    |`)((?:\.venv/bin/)?alignkit [a-z][^#`\n]*)", README)
]
SIZE = """
seeds = 4
[network]
width = 4
depth = 1
[training]
epochs = 1
batch_size = 200
[probe]
samples = 32
log_steps = 0
every_epochs = 0
evaluation_samples = 50
"""
FACTORS = """
[designs.practices]
kind = "fraction"
[designs.practices.factors]
network.norm = ["none", "batch"]
network.width = [4, 8]
network.activation = ["tanh", "relu"]
network.depth = [1, 2]
"""


def blocks(language: str) -> list[str]:
    return re.findall(rf"(?ms)^```{language}\n(.*?)^```$", README)


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory: pytest.TempPathFactory, without_pdf: None) -> Iterator[Path]:
    """The working folder of all examples: records in reports/quick, the README's study and table."""
    folder = tmp_path_factory.mktemp("examples")
    (folder / "tiny.toml").write_text(f'name = "tiny"\n{SIZE}{FACTORS}')
    (study,) = blocks("toml")
    smaller = re.sub("(?m)^(seeds|width|depth) = .*$", "", study).replace("[network]", SIZE)
    (folder / "norms.toml").write_text(smaller)
    rows = [(seed, norm, width) for seed in range(6) for norm in ("none", "batch") for width in (16, 64)]
    table = pd.DataFrame(rows, columns=["seed", "norm", "width"])
    table.assign(value=np.random.default_rng(0).normal(60, 1, len(table))).to_csv(folder / "mine.csv", index=False)
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        alignkit.run_study("tiny.toml", "reports/quick", workers=1)
        alignkit.run_study("norms.toml", "reports/norms", workers=1)
        yield folder


@pytest.mark.parametrize("module", WITH_EXAMPLES)
def test_examples_of_docstrings(module: str) -> None:
    outcome = doctest.testmod(importlib.import_module(module), extraglobs={"alignkit": alignkit})
    assert outcome.attempted and not outcome.failed


@pytest.mark.parametrize("number", range(len(blocks("python"))))
def test_python_of_the_readme(number: int, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from alignkit.report.section import Question
    from alignkit.rules.base import Rule

    code = blocks("python")[number]
    found: dict[str, Any] = {"__name__": "readme"}
    exec(compile(code, f"README.md, block {number + 1}", "exec"), found)
    printed = capsys.readouterr().out
    assert printed.count("\n") > 2 or "print(" not in code
    for name, value in found.items():
        if isinstance(value, type) and issubclass(value, Rule) and value.__module__ == "readme":
            (folder / "my_module.py").write_text(code)
            (folder / "mine.toml").write_text(f'name = "mine"\nrules = ["bp", "my_module:{name}"]\n{SIZE}')
            records = alignkit.run_study("mine.toml", "reports/mine", workers=1)
            taught = records.layers[records.layers["run_id"].isin(records.runs.query("rule != 'bp'")["run_id"])]
            assert taught["signal_cosine"].notna().any()
        if isinstance(value, Question):
            page = alignkit.write_report(alignkit.load("reports/quick"), "reports/own", sections=[value])
            assert f"{value.title}</h2>" in page.read_text(encoding="utf-8")


def test_the_study_of_the_readme_is_a_study() -> None:
    (study,) = blocks("toml")
    assert Study.parse(tomllib.loads(study)).name == "norms"


def call(command: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Exit status, and what was printed on both streams."""
    with pytest.MonkeyPatch.context() as patched, pytest.raises(SystemExit) as stopped:
        patched.setattr("sys.argv", shlex.split(command))
        runpy.run_module("alignkit", run_name="__main__")
    out = capsys.readouterr()
    return int(stopped.value.code or 0), out.out + out.err


@pytest.mark.parametrize("command", dict.fromkeys(COMMANDS))
def test_commands_of_the_readme(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """All have the options that the README names; what takes no time is run."""
    assert call(f"{command} --help", capsys)[0] == 0
    if "norms" in command and not command.startswith("alignkit report"):
        status, printed = call(command, capsys)
        assert status == 0, printed


def test_make_targets_of_the_readme() -> None:
    targets = re.search(r"(?m)^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"))
    named = set(re.findall(r"(?m)(?:^    |`)make ([a-z-]+)", README))
    assert targets and named and named <= set(targets[1].split())


def test_links_of_the_readme_lead_somewhere() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)", README) if ":" not in link]
    assert links and not [link for link in links if not (ROOT / link).exists()]
