"""The paper's studies and their report, at a size that takes seconds: digits, narrow layers, few seeds and epochs."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from alignkit.errors import RecordsError
from alignkit.execution.run_study import open_study, run_study, shipped_studies
from alignkit.papers.launay2019 import findings
from alignkit.papers.launay2019.claims import claim_rows
from alignkit.papers.launay2019.page import tuning_words, write_paper_report
from alignkit.papers.launay2019.published import HYPOTHESES, STUDIES
from alignkit.papers.published_summary import published_summary
from alignkit.records.store import load
from alignkit.study.study import Pilot, Study

pytestmark = pytest.mark.usefixtures("without_pdf")

SMALL = (
    "as_published_bottleneck",
    "as_published_fc",
    "defects",
    "ladder",
    "corrected_bottleneck",
    "corrected_fc",
    "convolutions",
)
SEEDS = {"as_published_bottleneck": "1", "defects": "3", "convolutions": "2"}


def _small(name: str, folder) -> str:
    """A shipped study with digits for images, layers of 12 for 800, blocks of 1 and 2 channels for up to 32."""
    text = shipped_studies()[f"launay2019/{name}"].read_text(encoding="utf-8")
    text = re.sub(r"\[data\]\n(?:.+\n)+", '[data]\nname = "digits"\n', text)
    text = text.replace("[800, 28, 800]", "[12, 3, 12]").replace("[800, 800, 800]", "[12, 12, 12]")
    text = text[: text.index("[profiles")] if "[profiles" in text else text
    text = re.sub(r"(?ms)^\[pilot\]\n.*?\n\n", "", text)
    text = re.sub(r"(?m)^lr = \[.*\]\n(?s:.*?)\n\n", "lr = [0.03, 0.1]\noutput_lr = 0.03\nextend = 0\n\n", text)
    text = re.sub(r"(?m)^seeds = \d+", f"seeds = {SEEDS.get(name, '3')}", text)
    text = (
        text.replace("[4, 4, 4]", "[1, 1, 1]").replace("[16, 16, 16] }", "[2, 2, 2] }").replace("pool = 3", "pool = 2")
    )
    text = re.sub(r"(?m)^pool_stride = 2|^kernel = 5|^padding = 2", lambda found: found[0][:-1] + "1", text)
    text = text.replace('"adam"\n', '"adam"\nlr = 0.003\n')
    text = re.sub(r"(?m)^(8|32) = .*\n", "", text)
    text = text.replace("[256, 256, 256]", "[12, 12, 12]").replace('matmul_precision = "bf16"\n', "")
    text = text.replace("0.965", "0.5")  # of 12 entries and of 3 some are left
    text = re.sub(r"(?m)^epochs = \d+", "epochs = 1", text)
    text = re.sub(r"(?m)^log_steps = \d+", "log_steps = 0\nevaluation_samples = 50", text)
    path = folder / f"{name}.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def _of(study: str):
    return [hypothesis for hypothesis in HYPOTHESES if study in dict(hypothesis.corrected)]


@pytest.fixture(scope="module")
def paper(tmp_path_factory):
    folder = tmp_path_factory.mktemp("paper")
    for name in SMALL:
        run_study(_small(name, folder), folder / name, workers=1, device="cpu")
    write_paper_report(folder)
    return folder


@pytest.mark.parametrize("name", [name for name in STUDIES if name != "ladder"])
def test_every_study_of_the_paper_is_shipped_with_a_smaller_profile_that_says_so(name):
    path, profile = f"launay2019/{name}", "two_cores" if name == "full_size_fc" else "cpu"
    full, small = open_study(path).study, open_study(path, profile=profile).study
    assert full.profile == "" and small.profile == profile and full.profiles[profile].description
    assert {claim.name for claim in small.claims} <= {claim.name for claim in full.claims}


def test_every_hypothesis_is_about_levels_and_claims_that_the_studies_have():
    for hypothesis in HYPOTHESES:
        assert hypothesis.corrected or hypothesis.a_rate, hypothesis.title
        for study, claim in hypothesis.corrected:
            declared = {known.name for known in open_study(f"launay2019/{study}").study.claims}
            assert claim in declared, hypothesis.title
        if hypothesis.published is not None:
            study, factor, levels = hypothesis.published
            text = Study.model_dump_json(open_study(f"launay2019/{study}").study)
            assert factor.split("_")[-1] in text and all(level in text for level in levels)


def test_the_report_has_every_section(paper):
    page = (paper / "index.html").read_text(encoding="utf-8")
    for title in (
        "The claims",
        "as it was published",
        "asked in every way",
        "From the released protocol",
        "taken apart",
        "for the same reason?",
        "predict accuracy",
        "measurement adds",
        "what ran",
        "was left out",
    ):
        assert title in page, title
    assert "Not run, or not finished: as_published_cnn, full_size_fc and corrected_cnn." in page
    assert "index.html" in (paper / "README.md").read_text(encoding="utf-8")
    for name in ("bottleneck", "taken_apart", "convolutions", "ladder", "panel_corrected_fc"):
        assert (paper / "figures" / f"{name}.svg").stat().st_size > 5000


@pytest.mark.slow
def test_the_report_is_the_same_again(paper):
    before = {path: path.read_bytes() for path in (*paper.glob("[ft]*/*.[csp]*"), paper / "index.html")}
    write_paper_report(paper)
    assert all(path.read_bytes() == content for path, content in before.items())


def test_a_row_of_the_claims_table_is_the_verdict_of_its_study(paper):
    claims = pd.read_csv(paper / "tables" / "claims.csv")
    table = claims[claims["study"] == "corrected_bottleneck"].set_index("claim")
    verdicts = {v.claim.name: v for v in findings.evaluate(load(paper / "corrected_bottleneck"))}
    for name, verdict in verdicts.items():
        assert table.loc[name, "estimate"] == pytest.approx(verdict.estimate, rel=1e-5), name
        assert table.loc[name, "verdict"] == verdict.verdict
    assert claims["here_from"].notna().sum() >= 5


def test_defects_show_where_they_must_and_nowhere_else(paper):
    table = pd.read_csv(paper / "tables" / "defects.csv")
    change = table.set_index(["trained", "measured", "layer"])["change"].sort_index()
    for trained in ("batch_norm", "low_dropout", "high_dropout"):
        assert (change[trained, "under_other_masks"] == 0).all()  # they have no masks
        assert change[trained, "in_two_modes", "output"] < -1e-3
    assert change["high_dropout", "in_two_modes", "output"] < change["low_dropout", "in_two_modes", "output"]
    assert (change["masked", "in_two_modes"].abs() < 1e-12).all()  # nor any mode
    # A fraction .24 is kept: of a signal under its mask, a like fraction under another one. Far above layer 2, nothing.
    at = (table["trained"] == "masked") & (table["measured"] == "under_other_masks") & (table["layer"] == "1")
    ratio = table[at].iloc[0]
    assert ratio["cosine"] / ratio["one_pass"] == pytest.approx(0.24, abs=0.15)
    assert change["masked", "under_other_masks", "3"] == 0


def test_ceilings_fall_with_the_rank_and_shares_are_shares(paper):
    cells = pd.read_csv(paper / "tables" / "bottleneck_cells.csv")
    for layer in (1, 2, 3):
        rank = cells.groupby("feedback_rank")[f"ceiling_cosine_{layer}"].mean()
        assert rank[2] < rank[10] <= 1
        shares = cells[f"share_{layer}"] * cells[f"ceiling_cosine_{layer}"]
        assert (shares.abs() <= 1).all()
    effects = pd.read_csv(paper / "tables" / "bottleneck_ceilings.csv")
    row = effects[(effects["factor"] == "feedback_rank") & (effects["layer"] == "1")].iloc[0]
    by_hand = cells.groupby("feedback_rank")["ceiling_cosine_1"].mean()
    assert row["ceiling_cosine"] == pytest.approx(by_hand[2] - by_hand[10], abs=1e-5)


def test_a_published_summary_takes_the_best_one_and_its_spread_over_samples(paper):
    records = load(paper / "as_published_fc")
    table = published_summary(records)
    runs, layers = records.runs, records.layers
    for (rule, cell), own in table.groupby(["rule", "cell"]):
        arm = runs[(runs["rule"] == rule) & (runs["cell"] == cell)]
        best = arm.loc[arm["train_accuracy"].idxmax()]
        assert (own["seed"] == best["seed"]).all() and len(own) == 3
        last = layers[(layers["run_id"] == best["run_id"]) & (layers["step"] == layers["step"].max())]
        assert np.array_equal(own["samples_sd"], last["signal_cosine_sd"])
        assert own["test_accuracy_sd"].iloc[0] == pytest.approx(100 * arm["test_accuracy"].std())


def test_a_reading_compares_arms_that_differ_in_nothing_else(paper):
    """The base network's cosine stands on one side of every practice that starts or ends there."""
    records = {"as_published_fc": load(paper / "as_published_fc")}
    runs = published_summary(records["as_published_fc"])
    plain = (runs["norm"] == "none") & runs["feedback_normalised"] & (runs["unit"] == "tanh")
    base = runs[plain & (runs["dropout_rates"] == "none")]["signal_cosine"].mean()
    found = {h.corrected[-1][1]: findings.reading(records, h) for h in _of("corrected_fc")}
    normalised = next(h for h in HYPOTHESES if h.a_rate)
    assert findings.reading(records, normalised).cosines[1] == pytest.approx(base)
    assert found["batch-norm"].cosines[0] == pytest.approx(base) and found["tanh"].cosines[1] == pytest.approx(base)
    assert len({found[name].cosines[0] for name in ("tanh", "large-slope", "low-dropout")}) == 3


def test_the_bottleneck_s_reading_leaves_out_the_layer_without_feedback(paper):
    records = load(paper / "as_published_bottleneck")
    bottleneck = next(h for h in _of("corrected_bottleneck") if h.title == "frozen weights")
    table = findings.bottleneck(records).query("initialisation == 'pytorch'").set_index("size")
    expected = [(table.loc[b, "here_layer2"] + table.loc[b, "here_layer3"]) / 2 for b in (800, 28)]
    assert findings.reading({"as_published_bottleneck": records}, bottleneck).cosines == pytest.approx(expected)


def test_a_step_of_the_ladder_moves_what_it_changes_and_nothing_else(paper):
    studies = {name: load(paper / name) for name in ("ladder", "corrected_fc")}
    values = findings.ladder_values(studies).set_index(["step", "practice", "seed"]).sort_index()
    # Without norm and dropout the two modes are one, and without masks there is nothing to share.
    for practice in ("plain", "relu"):
        for step in ("one_mode", "shared_masks"):
            assert values.loc[step, practice]["same"].all()
            expected = values.loc["feedback_everywhere", practice]["cosine"]
            assert values.loc[step, practice]["cosine"].equals(expected)
    assert not values.loc["shared_masks", "masked"]["same"].any()
    assert (values.loc["released", "plain"]["cosine"] != values.loc["feedback_everywhere", "plain"]["cosine"]).all()
    table = findings.ladder(values.reset_index()).set_index(["step", "practice"])
    row = table.loc["own_feedback", "batch norm"]
    by_hand = values.loc["own_feedback", "batch_norm"]["cosine"] - values.loc["own_feedback", "plain"]["cosine"]
    assert row["mean"] == pytest.approx(by_hand.mean()) and row["low"] < row["mean"] < row["high"]
    assert row["one_seed"] == pytest.approx(by_hand.iloc[0])
    assert ("weight_gradient", "tanh over ReLU") in table.index and ("own_rate", "masks (24% kept)") not in table.index


def test_the_study_that_counts_first_gives_the_verdict_and_the_other_is_named(paper):
    small = load(paper / "corrected_fc")
    hypothesis = next(h for h in _of("full_size_fc") if h.corrected[0][1] == "batch-norm")
    found = findings.judged({"corrected_fc": small, "full_size_fc": small}, hypothesis)
    assert [each.study for each in found] == ["full_size_fc", "corrected_fc"]
    assert [each.study for each in findings.judged({"corrected_fc": small}, hypothesis)] == ["corrected_fc"]
    row = next(r for r in claim_rows({"corrected_fc": small, "full_size_fc": small}) if r["hypothesis"] == hypothesis)
    assert row["where"].startswith("full size fc") and "In corrected fc" in row["reason"]


def test_a_piloted_claim_is_ungraded_and_says_so(paper):
    records = load(paper / "corrected_bottleneck")
    piloted = Pilot(lr=(0.03, 0.1), seeds=(1000,), epochs=1)
    study = records.study.model_copy(update={"pilot": piloted})
    rows = claim_rows({"corrected_bottleneck": replace(records, study=study)})
    own = [row for row in rows if row["part_of"].startswith("A bottleneck") and row["verdict"] != "undecided"]
    assert all(row["grade"] == "ungraded" and row["reason"].startswith("Piloted") for row in own)
    assert tuning_words(study) == "piloted on 1 other seed: tuning is in no interval"


def test_what_a_page_says_beside_the_records_is_escaped_and_an_older_page_s_files_go(paper, tmp_path):
    shutil.copytree(paper / "as_published_fc", tmp_path / "as_published_fc")
    (tmp_path / "notes.md").write_text("## Of <these> runs\n\nWith `torch`,\na < b.\n", encoding="utf-8")
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "old.csv").write_text("a\n", encoding="utf-8")
    page = write_paper_report(tmp_path).read_text(encoding="utf-8")
    assert "Of &lt;these&gt; runs</h2>" in page and "<p>With <code>torch</code>, a &lt; b.</p>" in page
    assert not (tmp_path / "tables" / "old.csv").exists() and (tmp_path / "tables" / "claims.csv").exists()


def test_records_in_the_wrong_folder_are_refused(paper, tmp_path):
    shutil.copytree(paper / "as_published_fc", tmp_path / "corrected_fc")
    with pytest.raises(RecordsError, match="expected records of the study corrected_fc; got those of as_published_fc"):
        write_paper_report(tmp_path)


def test_without_records_the_report_says_what_to_run(tmp_path):
    with pytest.raises(RecordsError, match="alignkit run launay2019/as_published_bottleneck"):
        write_paper_report(tmp_path)
