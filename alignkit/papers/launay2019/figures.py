"""The figures of the report on the paper."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from alignkit.figures.style import INK, STYLE, WIDTH, finish, ordered_colours
from alignkit.papers.launay2019.published import BOTTLENECK


def bottleneck_figure(table: pd.DataFrame) -> Figure:
    """Cosines by layer against the size of the published bottleneck, beside those that the paper has."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 3.3), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        standard = table[table["initialisation"] == "pytorch"]
        known = [row for row in BOTTLENECK if row.initialisation == "pytorch"]
        for layer, colour in zip((1, 2, 3), ordered_colours(3), strict=True):
            label = f"layer {layer}" + (" (bottleneck)" if layer == 2 else "")
            axes.plot(standard["size"], standard[f"here_layer{layer}"], color=colour, marker="o", ms=4, label=label)
            sizes, cosines = [row.size for row in known], [row.cosines[layer - 1] for row in known]
            axes.plot(sizes, cosines, color=colour, marker="x", ms=8, mew=1.8, ls="none")
        axes.plot([], [], color=INK, marker="x", ms=8, mew=1.8, ls="none", label="published")
        axes.set_xscale("log")
        ticks = [1, 3, 10, 30, 100, 300, 800]
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.minorticks_off()
        axes.set_xlabel("size b of the bottleneck (log scale)")
        axes.set_ylabel("signal cosine")
        axes.set_ylim(top=1.02)
        finish(figure, "The published bottleneck, here and in the paper", axes.get_legend_handles_labels()[0])
    return figure


def ceiling_figure(table: pd.DataFrame, title: str, layer_word: str) -> Figure:
    """What each factor does to the cosine, to its ceiling and to the share reached, layer by layer."""
    responses = (("signal_cosine", "cosine"), ("ceiling_cosine", "ceiling"), ("share", "share of ceiling"))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
        FigureCanvasAgg(figure)
        panels = figure.subplots(1, 3, sharey=True)
        factors = list(dict.fromkeys(table["factor"]))
        layers = [layer for layer in dict.fromkeys(table["layer"]) if layer != "mean"]
        for axes, (response, name) in zip(panels, responses, strict=True):
            axes.axvline(0, color=INK, lw=0.7)
            for layer, colour in zip(layers, ordered_colours(len(layers)), strict=True):
                rows = table[table["layer"] == layer].set_index("factor").loc[factors]
                at = np.arange(len(factors)) + 0.22 * (layers.index(layer) - (len(layers) - 1) / 2)
                low, high = rows[f"{response}_low"], rows[f"{response}_high"]
                axes.hlines(at, low, high, color=colour, lw=1.2)
                axes.plot(rows[response], at, "o", ms=4, color=colour, label=f"{layer_word} {layer}")
            axes.set_title(name)
            axes.locator_params(axis="x", nbins=3)
        labels = [
            f"{row['factor'].replace('_', ' ')}:\n{row['from']} → {row['to']}"
            for row in table.drop_duplicates("factor").to_dict("records")
        ]
        panels[0].set_yticks(range(len(factors)), labels)
        panels[0].invert_yaxis()
        panels[1].set_xlabel("change, with 95% interval over seeds")
        finish(figure, title, panels[0].get_legend_handles_labels()[0])
    return figure
