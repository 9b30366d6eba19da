"""Studies are validated with messages that a reader of the file can act on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from alignkit.columns import MEASURES
from alignkit.errors import StudyError
from alignkit.settings.data import Images
from alignkit.study.file import load_study
from alignkit.study.study import Study

MINIMAL = 'name = "t"\n'
BAD = {
    "unknown key": ("[network]\nwidht = 3", r'network\.widht: network has no such key; did you mean "width"\?'),
    "unknown section": ("[netwrok]\nwidth = 3", r'netwrok: a study has no such key; did you mean "network"\?'),
    "wrong choice": ('[network]\nactivation = "tan"', r'network\.activation: expected "tanh", .*; got \'tan\'; did you mean "tanh"\?'),
    "wrong kind": ('[network]\nkind = "mpl"', r"network\.kind: expected 'mlp', 'cnn'; got 'mpl'"),
    "wrong data": ('[data]\nname = "mnist"', r"data\.name: expected 'digits', 'teacher', 'images', or \"module:Class\" .*; got 'mnist'"),
    "out of range": ("[network]\ndropout = 1.5", r"network\.dropout: expected less than 1; got 1\.5"),
    "not a number": ('[training]\nlr = "fast"', r"training\.lr: expected a number; got 'fast'"),
    "infinite": ("[training]\nlr = inf", r"training\.lr: expected a finite number; got inf"),
    "zero seeds": ("seeds = 0", r"seeds: expected greater than or equal to 1, or a list; got 0"),
    "same seeds": ("seeds = [1, 1]", r"seeds: expected one or more different seeds; got \[1, 1\]"),
    "unknown rule": ('rules = ["bp", "dfaa"]', r'rules: no rule is called "dfaa"; did you mean "dfa"\?'),
    "no rule": ("rules = []", r"rules: expected one or more different rules; got \[\]"),
    "slope without leaky": ("[network]\nslope = 0.1", r'network: slope belongs to activation = "leaky_relu"; this network has "tanh"'),
    "widths and width": ("[network]\nwidth = 4\nwidths = [4, 5]", r"network: widths says every hidden layer's size: leave width and depth out"),
    "layer count": ("[network]\ndepth = 3\nlayers = [{}]", r"network: layers: expected one entry per hidden layer, 3; got 1"),
    "order": ('[network]\norder = ["norm", "norm"]', r"network\.order: expected each of norm, activation, dropout, pool exactly once"),
    "measure": ('[probe]\nmeasures = ["sginal"]', r'probe\.measures: no group of measures is called "sginal"; did you mean "signal"\?'),
    "momentum of Adam": ('[training]\noptimiser = "adam"\nmomentum = 0.9', r'training: momentum belongs to optimiser = "sgd"'),
    "claim without direction": (
        '[[claims]]\nname = "c"\nstatement = "s"\nfactor = "width"\nlevels = [1, 2]\nsmallest_effect = 1',
        r"claims\.0\.direction: expected this key, which is missing",
    ),
    "fraction": ('[designs.d]\nkind = "fraction"\nfraction = "1/3"', r'designs\.d\.fraction: expected "1/2", "1/4"'),
    "half as a character": ('[designs.d]\nkind = "fraction"\nfraction = "½"', r'expected "1/2", "1/4", "1/8" and so on; got "½"'),
    "superscript": ('[designs.d]\nkind = "fraction"\nfraction = "1/²"', r'expected "1/2", "1/4", "1/8" and so on; got "1/²"'),
    "digits of another script": ('[designs.d]\nkind = "fraction"\nfraction = "1/٢"', r'expected "1/2", "1/4"'),
    "terminal colours": ('title = "a\\u001b[31m"', r'title: expected text without control characters; got "a\\x1b\[31m"'),
    "a bell in a level": ('[designs.d.factors]\nname."a\\u0007" = {}', r"designs\.d\.factors\.name\.a\\x07: expected text without"),
    "a seed of 400 digits": (f"seeds = [{'9' * 400}]", r"seeds\.0: expected less than .*; got a whole number of about 401 digits"),
    "a scale of 400 digits": (f"[feedback]\nscale = {'9' * 400}", r"feedback\.scale: expected a number; got a whole number of about"),
    "too many claims": (
        "".join(f'[[claims]]\nname = "c{i}"\nstatement = "s"\nfactor = "width"\nlevels = [1, 2]\ndirection = "increase"\nsmallest_effect = 1\n' for i in range(1001)),
        r"claims: expected at most 1,000 claims; got 1,001",
    ),
    "too many designs": ("".join(f"[designs.d{i}]\n" for i in range(201)), r"designs: expected at most 200 designs; got 201"),
    "fraction of a grid": ('[designs.d]\nfraction = "1/2"', r'designs\.d: fraction belongs to kind = "fraction"; this design is a grid'),
    "name": ('name = "a/b"', r"name: expected"),
    "true is no number": ("[training]\nlr = true", r"training\.lr: expected a number; got True"),
    "text is no number": ('[network]\nwidth = "8"', r"network\.width: expected a whole number; got '8'"),
    "one is no flag": ("[feedback]\nnormalised = 1", r"feedback\.normalised: expected true or false; got 1"),
    "nan": ("[network]\ndropout = nan", r"network\.dropout: expected"),
    "no tail in a layer": ('[network]\nlayers = [{order = ["norm"]}, {}, {}]', r"order: expected each of norm, activation, dropout, pool exactly once"),
    "slope of a layer": ("[network]\nlayers = [{slope = 0.3}, {}, {}]", r'slope belongs to activation = "leaky_relu"'),
    "pilot without seeds": ("[pilot]\nlr = [0.1]\nseeds = []", r"pilot\.seeds: expected one or more different seeds; got \[\]"),
    "single brackets": ('[claims]\nname = "c"', r"claims: expected a list of tables: write \[\[claims\]\]"),
    "equal levels": (
        '[[claims]]\nname = "c"\nstatement = "s"\nfactor = "width"\nlevels = [1, 1]\ndirection = "increase"\nsmallest_effect = 1',
        r"claims\.0\.levels: expected two different levels, from and to; got \[1, 1\]",
    ),
    "design named a+b": ('[designs."a+b"]', r"designs\.a\+b: expected letters, digits"),
    "a million hidden layers": ("[network]\ndepth = 1000000", r"network\.depth: expected less than or equal to 1000"),
    "many unknown keys": ("\n".join(f"k{i} = 1" for i in range(40)), r"and 30 more"),
    "empty pilot": ("[pilot]\nlr = []", r"pilot\.lr: expected at least one learning rate"),
}  # fmt: skip


@pytest.mark.parametrize("text,message", BAD.values(), ids=BAD)
def test_bad_studies_have_one_helpful_message(tmp_path, text, message):
    path = tmp_path / "bad.toml"
    path.write_text(text if text.startswith("name =") else MINIMAL + text)
    with pytest.raises(StudyError, match=message) as caught:
        load_study(path)
    assert all(line.startswith(f"{path}: ") for line in str(caught.value).splitlines())


def test_a_file_that_is_not_toml_is_named(tmp_path):
    path = tmp_path / "bad.toml"
    path.write_text('title = "t"\nname = 1 2\n')
    with pytest.raises(StudyError, match=r"bad\.toml: not valid TOML: .*line 2"):
        load_study(path)
    for text, mend in (
        ("foo = [1,", r"The last line is not finished"),
        ("foo = " + "[" * 5000, "nested too deeply"),
        ("foo = " + "9" * 5000, "number of very many digits"),
    ):
        path.write_text(text)
        with pytest.raises(StudyError, match=rf"bad\.toml: not valid TOML: .*{mend}") as caught:
            load_study(path)
        assert "the line that it names" not in str(caught.value)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(StudyError, match=r"bad\.toml: expected a readable TOML file"):
        load_study(path)
    with pytest.raises(StudyError, match="no such study file"):
        load_study(tmp_path / "none.toml")


@pytest.mark.parametrize("kind", ["a folder", "a named pipe", "a device"])
def test_what_is_no_file_is_not_read(tmp_path, kind):
    path = tmp_path / "study.toml"
    if kind == "a folder":
        path.mkdir()
    elif kind == "a named pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(StudyError, match=rf"study\.toml: expected a study file, as TOML; got {kind}"):
        load_study(path)


def test_line_breaks_in_a_description_are_no_control_characters():
    assert Study.parse({"name": "t", "description": "one\n\ttwo\n"}).description == "one\n\ttwo\n"


def test_a_study_survives_its_canonical_json():
    study = Study.parse(
        {
            "name": "t", "seeds": [3, 5], "rules": ["dfa"], "data": {"name": "images", "path": "somewhere"},
            "network": {"kind": "cnn", "channels": [4]}, "probe": {"measures": ["signal"]},
            "designs": {"d": {"factors": {"network": {"norm": ["none", "batch"]}}}},
        }
    )  # fmt: skip
    import json

    assert Study.parse(json.loads(study.to_json())) == study
    assert isinstance(study.data, Images)


def test_studies_do_not_change():
    study = Study.parse({"name": "t"})
    with pytest.raises(Exception, match="frozen"):
        study.name = "u"  # type: ignore[misc]


def test_groups_of_measures():
    assert Study.parse({"name": "t"}).probe.groups == frozenset(MEASURES)
    assert Study.parse({"name": "t", "probe": {"measures": "angles"}}).probe.groups == {"signal", "delta", "gradient"}


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[2] / "studies").glob("*.toml")), ids=lambda path: path.stem
)
def test_shipped_studies_are_valid(path):
    from alignkit.data import loading
    from alignkit.execution.checks import plan_cohorts
    from alignkit.study.plan import expand

    study = load_study(path)
    assert study.name == path.stem and study.title
    assert study.claims or path.stem == "variance"  # whose levels are draws: none is better than another
    images = study.data.name == "images"  # of the user's own: not here
    plan = expand(study, fingerprint=(lambda section: "images") if images else loading.fingerprint, source=str(path))
    assert images or plan_cohorts(plan, device="cpu")
