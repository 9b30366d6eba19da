"""What several files of the project say is the same in all of them."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import alignkit

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_the_version_is_the_same_everywhere() -> None:
    cited = re.search(r"^version: (\S+)$", text_of("CITATION.cff"), re.MULTILINE)
    newest = re.search(r"^## \[(\d\S*)\]", text_of("CHANGELOG.md"), re.MULTILINE)
    assert cited and newest
    assert {PROJECT["version"], cited[1], newest[1]} == {alignkit.__version__}


def test_hosted_checks_run_every_python_that_is_supported() -> None:
    matrix = re.search(r"python: \[(.+)\]", text_of(".github/workflows/ci.yml"))
    supported = re.fullmatch(r">=3\.(\d+),<3\.(\d+)", PROJECT["requires-python"])
    assert matrix and supported
    assert re.findall(r'"3\.(\d+)"', matrix[1]) == [str(minor) for minor in range(int(supported[1]), int(supported[2]))]


def test_every_dependency_is_pinned() -> None:
    pinned = {normalised(line.partition("==")[0]) for line in text_of("constraints.txt").splitlines()}
    named = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]
    assert not {normalised(re.split(r"[><=\[]", name)[0]) for name in named} - pinned


def test_every_name_of_the_package_is_there() -> None:
    assert all(getattr(alignkit, name) is not None for name in dir(alignkit))


def test_type_checkers_find_the_annotations() -> None:
    assert (Path(alignkit.__file__).parent / "py.typed").is_file()


def test_what_the_readme_says_of_batch_norm_is_on_the_page_of_quick() -> None:
    """Another processor trains to other digits: the README's lie in the intervals of the report that stands beside it."""
    entries = json.loads(text_of("reports/quick/recommendations.json"))
    entry = next(each for each in entries if each.get("claim") == "batch-norm")
    said = re.search(
        r"by .([\d.]+)° on average: .([\d.]+)° under ReLU, \+([\d.]+)° under tanh.+?\*(\w+)\*",
        text_of("README.md"),
        re.DOTALL,
    )
    assert said
    levels = {each["level"]: each["interval"] for each in entry["levels_of_moderators"]}
    intervals = (entry["interval"], levels["relu"], levels["tanh"])
    for text, sign, interval in zip(said.groups()[:3], (-1, -1, 1), intervals, strict=True):
        assert interval[0] <= sign * float(text) <= interval[1]
    assert said[4] == entry["verdict"] == "supported"
