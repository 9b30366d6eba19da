"""Results show themselves in one line, and in a notebook as a table that escapes what users write."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from synthetic import synthetic_records

import alignkit
import alignkit.claims
import alignkit.stats
from alignkit.display import MOST_ROWS, digits_for, effect_words, shown, table_html
from alignkit.execution.notebook import cell_progress, in_notebook
from alignkit.execution.progress import Status

CLAIM = {
    "name": "batch-norm", "statement": "Batch norm <script>helps</script> & aligns", "practice": "Use batch <i>norm</i>",
    "factor": "norm", "levels": ["none", "batch"], "direction": "decrease", "smallest_effect": 2.0,
}  # fmt: skip
RECORDS = synthetic_records(study={"claims": [CLAIM]}, angle_effects={"network.norm": -5.0}, steps=(0, 360))


class _Checked(HTMLParser):
    """Every tag that opens closes, in order; `tags` are those seen."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.words: list[str] = []
        self.feed(html)
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)


def _classes() -> list[type]:
    modules = [
        importlib.import_module(found.name)
        for room in (alignkit.stats, alignkit.claims)
        for found in pkgutil.walk_packages(room.__path__, prefix=f"{room.__name__}.")
    ]
    classes = {value for module in modules for value in vars(module).values() if inspect.isclass(value)}
    return sorted(
        (c for c in classes if dataclasses.is_dataclass(c) and hasattr(c, "to_frame")), key=lambda c: c.__name__
    )


@pytest.mark.parametrize("cls", _classes(), ids=lambda c: c.__name__)
def test_every_result_has_a_line_and_a_table_of_its_own(cls):
    assert Path(cls.__repr__.__code__.co_filename).is_relative_to(Path(alignkit.__file__).parent)
    assert callable(cls._repr_html_)


def _results() -> dict[str, object]:
    from alignkit.stats.contrasts.choice import choose, confirm
    from alignkit.stats.contrasts.contrast_variance import contrast_variance
    from alignkit.stats.contrasts.contrasts import level_means
    from alignkit.stats.contrasts.equivalence import equivalence_test
    from alignkit.stats.contrasts.influence import leave_one_seed_out
    from alignkit.stats.contrasts.location import signed_rank
    from alignkit.stats.contrasts.paired import paired_test
    from alignkit.stats.contrasts.per_seed import seed_contrasts
    from alignkit.stats.contrasts.power import difference_power
    from alignkit.stats.curves.dose import dose_response

    comparison = alignkit.compare(RECORDS, factor="norm", by="activation")
    table = alignkit.run_summaries(RECORDS.runs, RECORDS.layers, "signal_angle_deg").query("rule == 'dfa'")
    model = alignkit.fit(RECORDS, "norm * width")
    differences = comparison.single.differences
    table = table.groupby(["seed", "norm"], as_index=False)["value"].mean()
    doses = pd.DataFrame(
        [(s, d, 60 + s - d + s * d % 3) for s in range(8) for d in range(4)], columns=["seed", "dose", "value"]
    )
    means = level_means(table, factor="norm", levels=["none", "batch"])
    assert {len(differences), len(means.means)} == {10}
    return {
        "records": RECORDS,
        "study": RECORDS.study,
        "plan": alignkit.study_plan({"name": "small", "factors": {"network.norm": ["none", "batch"]}, "seeds": 2}),
        "verdicts": alignkit.evaluate(RECORDS),
        "verdict": alignkit.evaluate(RECORDS)[0],
        "recommendations": alignkit.recommendations(RECORDS),
        "comparison": comparison,
        "contrast": comparison.single,
        "fit": model,
        "mixed": alignkit.fit(RECORDS, "norm", layers=True),
        "margins": alignkit.marginal_means(model, "norm", by="width"),
        "paired": paired_test(differences),
        "equivalence": equivalence_test(differences, margin=2.0),
        "location": signed_rank(differences),
        "level means": means,
        "choice": choose(means.means, better="lower", margin=2.0),
        "confirmation": confirm(-5.0, differences, margin=2.0, verdict="supported"),
        "influence": leave_one_seed_out(differences, margin=2.0),
        "per seed": seed_contrasts(table, factor="norm", levels=("none", "batch"), response="value"),
        "variance": contrast_variance(table, factor="norm", levels=("none", "batch")),
        "power": difference_power(8, effect=1.0, sd=1.0),
        "dose": dose_response(doses, dose="dose"),
    }


@pytest.fixture(scope="module")
def results() -> dict[str, object]:
    return _results()


def test_a_line_is_a_line(results):
    for name, result in results.items():
        for text in (repr(result), str(result)):
            assert "\n" not in text and len(text) < 250, f"{name}: {text}"
            if name != "verdicts":  # a list
                assert text.startswith(f"{type(result).__name__}(") and text.endswith(")")


def test_html_is_whole_small_and_escaped(results):
    for name, result in results.items():
        html = result._repr_html_()
        page = _Checked(html)
        assert "table" in page.tags and len(html) < 20_000, name
        assert page.tags <= {"style", "div", "b", "table", "thead", "tbody", "tr", "th", "td", "span"}, name
        assert "http" not in html
        assert set(re.findall(r'class="([^"]*)"', html)) <= {
            "alignkit-shown", "alignkit-table", "alignkit-number", "alignkit-badge", "alignkit-note"
        }  # fmt: skip


def test_what_lines_say(results):
    assert repr(RECORDS) == "Records('synthetic': 1,280 runs, 64 cells, 10 seeds, rules bp and dfa, complete)"
    assert repr(RECORDS.study) == "Study('synthetic': one cell, 1 claim, rules bp and dfa, 10 seeds)"
    assert repr(results["plan"]) == "Plan('small': 8 runs, 2 cells, 2 seeds, rules bp and dfa)"
    contrast = results["contrast"]
    low, high = contrast.interval
    effect = f"−{-contrast.estimate:.1f}° [−{-low:.1f}, −{-high:.1f}]"  # noqa: RUF001
    assert repr(contrast) == f"Contrast(norm none to batch, signal_angle_deg: {effect}, p .002, 10 seeds)"
    assert repr(results["verdict"]) == f"Verdict(batch-norm: supported, {effect}, p .002, 10 seeds)"
    assert repr(results["verdicts"]) == f"[{results['verdict']!r}]"
    assert repr(results["recommendations"]) == "Recommendations(Use batch <i>norm</i>: supported)"
    assert repr(results["margins"]) == "Margins(width, norm: 4 estimates, 10 seeds)"
    assert repr(results["fit"]) == "FactorialFit(value ~ norm * width: 4 coefficients, 10 seeds)"


def test_records_that_are_not_whole_say_so():
    gone = dataclasses.replace(RECORDS, missing=12, held_out=RECORDS)
    assert repr(gone).endswith("10 seeds and 10 held out, rules bp and dfa, 12 runs missing)")
    failed = synthetic_records(diverge=(("network.norm", "batch"),), steps=(0, 360))
    assert f"{int(failed.runs['diverged'].sum())} diverged" in repr(failed)


def test_verdicts_and_recommendations_are_still_lists():
    verdicts, entries = alignkit.evaluate(RECORDS), alignkit.recommendations(RECORDS)
    assert isinstance(verdicts, list) and isinstance(entries, list)
    assert entries == alignkit.recommendations(RECORDS, verdicts) == list(entries)
    assert list(verdicts.to_frame()["claim"]) == ["batch-norm"]
    assert "supported" in verdicts._repr_html_() and "&lt;script&gt;" in verdicts._repr_html_()
    nothing = alignkit.evaluate(synthetic_records(steps=(0, 360)))
    assert nothing == [] and "0 claims" in nothing._repr_html_()


def test_a_comparison_of_three_levels_says_each():
    rows = [
        (s, n, 60 + s + shift + (s * k) % 3)
        for s in range(8)
        for k, (n, shift) in enumerate([("a", 0), ("b", -3), ("c", 2)])
    ]
    result = alignkit.compare(pd.DataFrame(rows, columns=["seed", "norm", "value"]), factor="norm")
    assert re.fullmatch(r"Comparison\(norm, value: a to b .*, a to c .* p .*, 8 seeds\)", repr(result))


def test_numbers():
    assert [digits_for(values) for values in ([-0.0123], [72.4, 3.0], [1234.5], [0.0], [float("nan")])] == [
        4,
        1,
        0,
        2,
        2,
    ]
    nothing = (float("nan"), float("nan"))
    assert effect_words(-3.214, (-4.02, 2.4), "signal_angle_deg") == "−3.2° [−4.0, +2.4]"  # noqa: RUF001
    assert effect_words(1.0, nothing, "test_accuracy") == "+1.00 points"


def test_tables():
    long = table_html(pd.DataFrame({"x": range(MOST_ROWS + 3), "name": "a<b"}))
    assert "and 3 rows more" in long and "a&lt;b" in long and "a<b" not in long
    wide = table_html(pd.DataFrame([{f"c{i}": i for i in range(30)}]))
    assert wide.count("<tr>") == 30
    mixed = table_html(pd.DataFrame({"p": [0.0001, 0.5], "x": [-1.0, np.nan], "flag": [True, False]}))
    odd = table_html(pd.DataFrame({"n": pd.array([1000, None], dtype="Int64"), "of": [["a"], None]}))
    assert "1,000" in odd and "[&#x27;a&#x27;]" in odd and "None" not in odd and "NA" not in odd
    assert "&lt;.001" in mixed and "−1" in mixed and "True" in mixed  # noqa: RUF001


def test_a_result_of_ones_own_is_shown_like_any_other():
    @shown(in_response=True)
    @dataclasses.dataclass(frozen=True)
    class Mine:
        response: str
        estimate: float
        interval: tuple[float, float]
        n_seeds: int
        warnings: tuple[str, ...] = ()

        def to_frame(self):
            return pd.DataFrame([{"estimate": self.estimate}])

    mine = Mine("signal_angle_deg", 2.0, (1.0, 3.0), 1, ("few <seeds>",))
    assert repr(mine) == "Mine(signal_angle_deg: +2.0° [+1.0, +3.0], 1 seed, 1 warning)"
    assert "few &lt;seeds&gt;" in mine._repr_html_()


def test_progress_below_a_cell(monkeypatch):
    written: list[str] = []

    def display(content, *, raw, display_id):
        written.append(content["text/plain"])
        _Checked(content["text/html"].replace("<progress", "<b").replace("</progress", "</b"))
        return SimpleNamespace(update=lambda content, raw: written.append(content["text/plain"]))

    assert not in_notebook()
    shell = SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel=object()))
    monkeypatch.setitem(sys.modules, "IPython", shell)
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=display))
    assert in_notebook()
    monkeypatch.setattr("alignkit.execution.notebook._SECONDS", 0.0)

    def status(done):
        return Status(done, 1200, done / 1200, (), ("a worker is silent",) if done == 7 else ())

    with cell_progress("quick") as begin:
        show = begin("training")
        show(status(0))
        show(status(7))
        show(status(1200))
    assert written == [
        "quick: training: 0 of 1,200 runs, 1,200 left",
        "quick: training: 7 of 1,200 runs, 1,193 left. a worker is silent",
        "quick: training: 1,200 of 1,200 runs",
    ]
    with pytest.raises(KeyboardInterrupt), cell_progress("quick") as begin:
        begin("training")(status(100))
        raise KeyboardInterrupt
    assert written[-1].startswith("quick: training: 100 of 1,200 runs. Stopped: what had finished is kept")
