"""What the entrances of the analysis refuse, and the mend that each message names.

Some calls pass what their types forbid: that is the bad input, and why those types are ignored.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from synthetic import grid, synthetic_records

import alignkit
from alignkit import stats
from alignkit.claims.compare import compare
from alignkit.claims.fit import fit
from alignkit.claims.verdicts import evaluate
from alignkit.columns import label_of, unit_of
from alignkit.errors import AlignkitError
from alignkit.records.confounding import rate_note, step_note
from alignkit.records.summaries import run_summaries
from alignkit.stats.contrasts.choice import choose, confirm
from alignkit.stats.contrasts.influence import leave_one_seed_out
from alignkit.stats.contrasts.power import difference_power, nested_power
from alignkit.stats.curves.matched import matched_loss_table
from alignkit.stats.curves.phase_order import layer_order
from alignkit.stats.curves.phases import memorisation_times, phase_times
from alignkit.stats.mechanisms.variance_components import variance_components
from alignkit.stats.models.margins import marginal_contrasts, marginal_means
from alignkit.stats.sensitivity.attrition import worst_case_bounds
from alignkit.stats.tables.checks import require_count

NAN, INF = float("nan"), float("inf")
HUGE = 10**400
LEVEL, ALPHA, NUMBERS = "Write 0.95 for 95%", "Write 0.05 for 5%", "Convert it"
OWN_COLUMNS, COLUMNS = "Name the factors alone", "valid: norm, seed, value, width"


def balanced() -> pd.DataFrame:
    generator = np.random.default_rng(0)
    rows = [(s, n, w, 60 + generator.normal()) for s in range(8) for n in "abc" for w in (1, 2, 4)]
    return pd.DataFrame(rows, columns=["seed", "norm", "width", "value"])


TABLE = balanced()
MODEL = fit(TABLE, "norm * width")
RECORDS = synthetic_records(
    designs={"d": grid({"network.norm": ["none", "batch"], "feedback.normalised": [False, True]})}, seeds=3,
    steps=(0, 360),
)  # fmt: skip


def of_table(table: pd.DataFrame = TABLE, **options: Any) -> Any:
    return compare(table, **{"factor": "norm", "within": ["width"], **options})


def one(**options: Any) -> Any:
    return stats.contrast(TABLE, **{"factor": "norm", "levels": ("a", "b"), "within": ["width"], **options})


def changed(name: str, value: Any) -> pd.DataFrame:
    """The table with one value put in another's place."""
    column = TABLE[name].astype(object)
    column.iloc[1] = value
    return TABLE.assign(**{name: column.infer_objects()})


def twice(name: str) -> pd.DataFrame:
    return pd.concat([TABLE, TABLE[[name]]], axis="columns")


BAD_CALLS: list[tuple[Callable[[], Any], str]] = [
    # levels of intervals and tests, margins, counts, seeds of generators
    *((lambda level=level: one(level=level), LEVEL) for level in (-1, 0, 1.0, 95, "95", NAN, True)),
    (lambda: marginal_means(MODEL, "norm", level=95), LEVEL),
    (lambda: MODEL.to_frame(level=1.0), LEVEL),
    (lambda: marginal_means(MODEL, "norm", null=NAN), "null: expected a finite number"),
    (lambda: stats.equivalence_test([1.0, 2.0, 3.0], margin=1, alpha=0.6), "between 0 and 0.5.*" + ALPHA),
    (lambda: stats.equivalence_test([1.0, 2.0, 3.0], margin=INF), "State the smallest effect"),
    (lambda: stats.equivalence_test([1.0, 2.0, 3.0], margin="1"), "State the smallest effect"),  # type: ignore[arg-type]  # a text
    (lambda: stats.paired_test([1.0, 2.0], alpha=2), ALPHA),
    (lambda: stats.paired_test([1.0] * 9, alpha=0.05, family_size=0), "family_size: .* at least 1; got 0"),
    (lambda: stats.minimum_seeds(0), "at least 1; got 0"),
    (lambda: stats.minimum_seeds(1.5), "a whole number of at least 1; got 1.5"),  # type: ignore[arg-type]  # a fraction
    (lambda: stats.minimum_seeds(1, 0), ALPHA),
    (lambda: stats.require_seeds("8"), "n_seeds: expected a whole number"),  # type: ignore[arg-type]  # a text
    (lambda: stats.sign_flip_p([1.0] * 40, draws=0), "draws: .* at least 1"),
    (lambda: stats.sign_flip_p([1.0] * 40, seed=-1), "seed: .* at least 0"),
    (lambda: evaluate(RECORDS, alpha=5), ALPHA),
    (lambda: marginal_means(MODEL, "norm", null=HUGE), "null: .* a whole number of about 401 digits"),
    (lambda: stats.equivalence_test([1.0, 2.0, 3.0], margin=HUGE), "a margin .* about 401 digits"),
    (lambda: stats.minimum_seeds(HUGE), "family_size: .* about 401 digits"),
    (lambda: stats.minimum_seeds(INF), "family_size: expected a whole number"),  # type: ignore[arg-type]  # no number
    (lambda: stats.holm([HUGE]), "expected a list of p-values"),
    (lambda: difference_power(8, effect=HUGE, sd=1.0), "a finite effect other than 0; got a whole number of about 401"),
    (lambda: nested_power(8, effect=1.0, seed_by_factor_sd=HUGE, run_sd=1, cells=1), "got cells=1, .*about 401 digits"),
    (lambda: confirm(HUGE, [1.0, 2.0, 3.0], margin=1.0, verdict="supported"), "finding's estimate, finite"),
    (
        lambda: choose(TABLE.pivot_table("value", "seed", "norm"), better="lower", margin=HUGE),
        "a margin above 0; got a",
    ),
    (lambda: leave_one_seed_out([1.0, 2.0, HUGE, 4.0]), "expected numbers of at most 1.8e.308"),
    (
        lambda: worst_case_bounds(TABLE, factor="norm", levels=("a", "b"), response="value", bounds=(0, HUGE)),
        "finite bounds, the lower first",
    ),
    (lambda: stats.level_text(10**5000), "levels that can be written; got a whole number of about 5,001 digits"),
    # p-values
    *(
        (lambda p=p, adjust=adjust: adjust(p), message)
        for adjust in (stats.holm, stats.benjamini_hochberg)
        for p, message in (
            ([-0.1], "between 0 and 1.*got -0.1"),
            ([0.1, 1.2], "not test statistics"),
            ([INF], "got inf"),
            ("abc", "Give numbers"),
            (0.3, "expected a list of p-values"),
        )
    ),
    # differences
    (lambda: stats.paired_test(np.ones((3, 3))), "Average what belongs to one seed"),
    (lambda: stats.paired_test([[1.0], [1.0, 2.0]]), "Average what belongs to one seed"),  # type: ignore[list-item]
    (lambda: stats.paired_test(3.0), "Average what belongs to one seed"),  # type: ignore[arg-type]
    (lambda: stats.paired_test(["a", "b"]), NUMBERS),  # type: ignore[list-item]
    (lambda: stats.paired_test([1j, 2.0]), NUMBERS),  # type: ignore[list-item]
    *(
        (lambda test=test: test([1.0, INF, 2.0]), "1 infinite of 3. .* or set them to NaN")
        for test in (stats.paired_test, stats.sign_flip_p, lambda d: stats.equivalence_test(d, margin=1.0))
    ),
    # responses and seeds
    *(
        (lambda call=call, table=table: call(table), message)
        for call in (of_table, lambda table: fit(table, ["norm"]))
        for table, message in (
            (changed("value", INF), "1 infinite of"),
            (changed("value", -INF), "set them to NaN"),
            (TABLE.assign(value="x"), NUMBERS),
            (TABLE.assign(value=TABLE["value"] + 1j), NUMBERS),
            (twice("value"), 'one column "value"; got 2. Rename them'),
            (twice("norm"), 'one column "norm"; got 2'),
            (changed("seed", NAN), '1 rows without one in "seed". Say which'),
            (changed("seed", "0"), 'all numbers or all text; got both in "seed". Convert'),
            (TABLE.assign(seed=[[seed] for seed in TABLE["seed"]]), r'as the seed of a row; got \[0\] in "seed"'),
            (TABLE.assign(seed=[(seed,) for seed in TABLE["seed"]]), r"as the seed of a row; got \(0,\)"),
            (changed("value", HUGE), '"value": expected numbers of at most 1.8e.308; got larger whole numbers'),
        )
    ),
    # levels
    *((lambda levels=levels: one(levels=levels), "two levels, from and to") for levels in (("a", "b", "c"), ("a",))),
    *((lambda levels=levels: one(levels=levels), r'Write \["before", "after"\]') for levels in ("ab", 5, None)),
    *((lambda levels=levels: of_table(levels=levels), r'Write \["before", "after"\]') for levels in ("ab", 5)),
    (lambda: compare(RECORDS, factor="norm", levels=5), r'Write \["before", "after"\]'),  # type: ignore[arg-type]
    (lambda: marginal_contrasts(MODEL, "norm", kind="polynomial", scores=[0, 1, NAN]), "scores: expected a finite"),
    (lambda: marginal_contrasts(MODEL, "norm", kind="cubic"), '"pairwise" or "polynomial"'),  # type: ignore[arg-type]
    # names and roles
    *((lambda name=name: of_table(factor=name), "factor: expected one name") for name in (None, 3, ["norm", "width"])),
    (lambda: of_table(within=3), r'within: .* Write \["a", "b"\]'),
    (lambda: of_table(within="widht"), 'column "widht"; did you mean "width"'),
    (lambda: of_table(seed=None), "column: expected one name"),
    (lambda: of_table(factor="seed", within=["norm", "width"]), OWN_COLUMNS),
    (lambda: of_table(factor="value"), OWN_COLUMNS),
    (lambda: of_table(by="seed"), OWN_COLUMNS),
    (lambda: of_table(within=["seed", "width"]), OWN_COLUMNS),
    (lambda: compare(RECORDS, factor="norm", seed="run_id"), "column of the seeds with seed="),
    (lambda: stats.contrasts(TABLE, ["norm", "norm", "width"]), "expected different names"),
    (lambda: stats.contrasts(TABLE, []), r'as in \["norm", "width"\]'),
    (lambda: stats.contrasts(TABLE, ["nrm"]), 'did you mean "norm"'),
    (lambda: stats.contrasts(TABLE, ["norm"], base={"zz": 1}), f'column "zz"; {COLUMNS}'),
    # models
    (lambda: fit(TABLE, None), "model: expected different names"),  # type: ignore[arg-type]
    (lambda: fit(TABLE, 3), "model: expected different names"),  # type: ignore[arg-type]
    (lambda: fit("quick", ["norm"]), r"Read a directory of records with load\(...\)"),  # type: ignore[arg-type]
    (lambda: fit(TABLE, "width ~ norm", response="value"), '"value" beside it. Leave one of them out'),
    (lambda: fit(TABLE, "norm", layers=True), "Give records"),
    (lambda: fit(pd.concat([TABLE, TABLE]), "norm"), r"72 that repeat another .* drop_duplicates\(\)"),
    (lambda: fit(changed("value", 10**5000), "norm"), '"value": expected numbers of at most'),
    (lambda: fit(changed("norm", 10**5000), "norm"), "expected levels that can be written.* about 5,001 digits"),
    (lambda: of_table(changed("seed", 1j)), "one number or text as the seed of a row; got 0j"),
    (lambda: marginal_means(None, "norm"), r"Make one with fit\(…\)"),  # type: ignore[arg-type]
    (
        lambda: marginal_means(fit(TABLE, "norm + I(width)"), "norm", at={"width": "x"}),  # type: ignore[dict-item]
        "at: width: expected a finite number",
    ),
    *(
        (
            lambda width=width: marginal_means(fit(TABLE, "norm * log2(width)"), "norm", at={"width": width}),
            rf"log2\(width\), norm:log2\(width\): .* got none with width = {width}. Put the covariates elsewhere",
        )
        for width in (0, -1)
    ),
    # records and summaries
    (lambda: of_table(rule="bp"), "a table and rule='bp'. Give records, or choose the table's rows"),
    (lambda: of_table(summary="last"), "a table and summary='last'"),
    (lambda: compare(RECORDS, factor="norm", summary="last"), 'summary to be "final" or "auc"; got \'last\''),
    *(
        (
            lambda layer=layer: compare(RECORDS, factor="norm", layer=layer),
            "layer: expected the number of a hidden layer",
        )
        for layer in (True, 0, 1.5, "1")
    ),
    *(
        (lambda options=options: compare(RECORDS, factor="norm", **options), "Leave both out, or name a measure")
        for options in ({"response": "test_accuracy", "layer": 1}, {"response": "accuracy_gap", "summary": "auc"})
    ),
    (lambda: run_summaries(TABLE, TABLE, "value"), f'column "run_id"; {COLUMNS}$'),
    (lambda: stats.in_design(TABLE, "x"), f'column "designs"; {COLUMNS}'),
    (lambda: rate_note(TABLE, factor="zz", levels=("a", "b"), tuned=True), f'column "zz"; {COLUMNS}'),
    (lambda: step_note(TABLE, factor="zz", levels=("a", "b")), f'column "zz"; {COLUMNS}'),
    (lambda: unit_of(None), "response: expected one name"),  # type: ignore[arg-type]
    (lambda: label_of(None), "response: expected one name"),  # type: ignore[arg-type]
    (
        lambda: stats.seed_contrasts(5, factor="norm", levels=("a", "b"), response="value"),  # type: ignore[arg-type]
        "a pandas table; got int. Make one",
    ),
    (lambda: evaluate(TABLE), r"expected records; got DataFrame. Read a directory"),  # type: ignore[arg-type]
    (lambda: alignkit.load(None), "expected the directory of the records; got None. Give the path"),
]


@pytest.mark.parametrize(("call", "mend"), BAD_CALLS)
def test_a_bad_call_is_refused_with_its_mend(call: Callable[[], Any], mend: str) -> None:
    with pytest.raises(AlignkitError, match=mend):
        call()


def test_a_layer_is_refused_although_its_equal_was_asked_for_before() -> None:
    assert compare(RECORDS, factor="norm", layer=1).n_seeds == 3
    with pytest.raises(AlignkitError, match="got True"):
        compare(RECORDS, factor="norm", layer=True)


def test_whole_numbers_of_any_length_are_levels() -> None:
    huge = TABLE.assign(norm=[{"a": HUGE, "b": HUGE + 1, "c": -HUGE}[level] for level in TABLE["norm"]])
    assert of_table(huge).levels == (str(HUGE), str(HUGE + 1), str(-HUGE))
    assert of_table(huge).contrasts[0].estimate == of_table().contrasts[0].estimate
    assert stats.level_text(str(HUGE)) == stats.level_text(HUGE)


ANGLE: dict[str, Any] = {"response": "signal_angle_deg", "better": "lower", "chance": 90.0, "margin": 2.0}


def test_an_index_that_is_called_like_a_column_changes_nothing() -> None:
    runs, layers = RECORDS.runs, RECORDS.layers
    checkpoints = RECORDS.checkpoints.assign(train_loss=lambda table: 1 / (1 + table["step"]))
    calls: list[Callable[..., Any]] = [
        lambda named: run_summaries(named(runs), named(layers), "signal_angle_deg")["value"],
        lambda named: phase_times(named(runs), named(layers), **ANGLE)["time"],
        lambda named: memorisation_times(named(runs), named(checkpoints))["time"],
        lambda named: layer_order(named(phase_times(runs, layers, **ANGLE))).to_frame()["estimate"],
        lambda named: matched_loss_table(
            named(runs), named(checkpoints), named(layers), factor="norm", levels=("none", "batch"),
            response="signal_angle_deg",
        )["value"],
        lambda named: variance_components(named(TABLE), factors=["norm", "width", "seed"]).to_frame()["share"],
        lambda named: of_table(named(TABLE)).means["mean"],
        lambda named: fit(named(TABLE), "norm * width", method="mixed").to_frame()["estimate"],
    ]  # fmt: skip
    for call in calls:
        plain = call(lambda table: table).to_numpy()
        for name in ("run_id", "layer", "seed", "norm"):
            named = call(lambda table, name=name: table.rename_axis(index=name)).to_numpy()
            np.testing.assert_array_equal(named, plain)


def test_what_is_good_still_passes() -> None:
    two = of_table(levels=np.array(["a", "b"]), within="width")
    assert two.estimate == one(levels=pd.Index(["a", "b"])).estimate
    require_count("n", np.int64(3))
    assert stats.paired_test([None, 1.0, 2.0]).n_seeds == 2  # type: ignore[list-item]
    flags = of_table(TABLE.assign(value=TABLE["value"] > 60), levels=["a", "b"])
    above = (TABLE["value"] > 60).groupby(TABLE["norm"]).mean()
    assert flags.estimate == pytest.approx(above["b"] - above["a"])
    np.testing.assert_allclose(stats.holm([[0.1, 0.2], [0.3, NAN]]), [[0.2, 0.2], [0.6, NAN]])
