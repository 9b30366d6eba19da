# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A first look
#
# Back-propagation sends the error of a network's output down through its own weights, transposed. Direct feedback
# alignment (DFA) sends it to every hidden layer through a fixed random matrix instead. *Alignment* says how far the
# update that DFA makes points the way that back-propagation's would: it is the cosine, or the angle, between the two
# at one layer of one network on the same samples.
#
# This notebook asks one question of it: **does batch normalisation help DFA align in ReLU networks?** It defines a
# small study, runs it, compares, judges and draws. It takes five minutes, of which one is computing on two processor
# cores.

# %%
import seaborn as sns

import alignkit

# %% [markdown]
# ## Define
#
# A study says what trains, what varies, and what is claimed, before anything runs. This one crosses two norms with two
# depths and trains each of the four cells under back-propagation (`bp`) and under DFA (`dfa`), with eight seeds, on the
# 8 by 8 digits that come with alignkit. The pilot tunes a learning rate for each cell and rule, on seeds of its own.
#
# The claim names a factor, two levels, what they change, in which direction, and the smallest effect that matters. It
# is about the *weight gradient*, which is what the weights move along. The more usual place to measure is the signal at
# a layer's output, but there batch norm misleads: it forces back-propagation's signal to sum to zero over the batch,
# while DFA's does not.

# %%
study = alignkit.Study(
    name="first-look",
    title="Does batch normalisation help DFA align in ReLU networks?",
    network={"activation": "relu", "width": 64},
    training={"epochs": 10},
    factors={"network.norm": ["none", "batch"], "network.depth": [2, 4]},
    seeds=8,
    pilot={"lr": [0.03, 0.1, 0.3]},
    probe={"measures": ["signal", "gradient", "step"], "every_epochs": 2, "evaluation_samples": 300},
    claims=[
        {
            "name": "batch-norm",
            "statement": "Batch norm turns the weight gradients of DFA towards those of back-propagation",
            "practice": "Use batch norm in ReLU networks",
            "factor": "norm",
            "levels": ["none", "batch"],
            "response": "gradient_cosine",
            "direction": "increase",
            "smallest_effect": 0.02,
        }
    ],
)
study

# %% [markdown]
# `study_plan` shows what this will run. `study.to_toml()` gives the same study as a file, for the command line.

# %%
alignkit.study_plan(study)

# %% [markdown]
# ## Run
#
# Networks of one shape train together. The records go to a folder; when a run is interrupted, what had finished is
# kept, and the same cell goes on with the rest. Run it again when it has finished, and it only reads the records.

# %%
records = alignkit.run_study(study, "records/first_look")
records

# %% [markdown]
# ## Look
#
# Records are three tidy tables: `runs` has a row per network, `checkpoints` a row per network and moment, and `layers`
# a row per network, moment and hidden layer. They are pandas tables, to be filtered and joined as usual. The second
# table below shows each layer of the deep networks at the end of training. A claim is about their mean unless it names
# one layer, so look whether the layers agree.

# %%
records.runs.groupby(["rule", "depth", "norm"])[["lr", "train_accuracy", "test_accuracy"]].mean().round(3)

# %%
last = records.layers["step"].max()
final = records.layers.merge(records.runs[["run_id", "rule", "norm", "depth"]], on="run_id")
final = final.query("step == @last and rule == 'dfa' and depth == 4")
final.pivot_table(index="layer", columns="norm", values=["gradient_cosine", "signal_cosine"]).round(2)

# %% [markdown]
# ## Compare
#
# `compare` takes one contrast per seed: networks of one seed start from the same weights and see the same batches, so
# the seed is what repeats. Here is the effect of batch norm on the cosine at the weight gradient, averaged over depths
# and then at each depth.

# %%
alignkit.compare(records, factor="norm", by="depth", response="gradient_cosine")

# %% [markdown]
# The same comparison on the signal at the layers' outputs, in degrees, says the contrary: a larger angle is a worse
# alignment. This is the trap of the paragraph above, and the reason to measure in more than one place.

# %%
alignkit.compare(records, factor="norm", response="signal_angle_deg")

# %% [markdown]
# `fit` puts several factors and their interactions into one model, and `marginal_means` reads it: the expected cosine
# in each cell, with its interval over seeds.

# %%
model = alignkit.fit(records, "norm * depth", response="gradient_cosine")
model

# %%
alignkit.marginal_means(model, "norm", by="depth")

# %% [markdown]
# ## Judge
#
# `evaluate` judges the claims that the study declared, by an exact test over seeds. A verdict is *supported*,
# *refuted*, *equivalent* (no effect that matters) or *undecided*.

# %%
alignkit.evaluate(records)

# %%
alignkit.recommendations(records)

# %% [markdown]
# ## Draw
#
# A figure of one's own starts from the tidy tables. This one shows both places of measurement over training, averaged
# over the hidden layers. The band is a 95% interval over seeds.

# %%
places = {"gradient_cosine": "weight gradient", "signal_cosine": "layer output"}
keys = ["depth", "norm", "seed", "step"]
curves = records.layers.merge(records.runs[["run_id", "rule", *keys[:3]]], on="run_id")
curves = curves.query("rule == 'dfa' and step > 0").groupby(keys, as_index=False)[list(places)].mean()
curves = curves.rename(columns=places).melt(keys, var_name="measured at", value_name="cosine")
sns.set_theme(context="notebook", style="whitegrid", palette="colorblind")
figure = sns.relplot(
    curves, x="step", y="cosine", hue="norm", style="norm", col="measured at", row="depth",
    kind="line", height=2.4, aspect=1.4, seed=0,
)  # fmt: skip
figure = figure.set_titles("{row_name} layers, {col_name}").set(xscale="log", ylim=(0, 1))

# %% [markdown]
# `alignkit.write_report(records, "records/first_look")` makes a page of all this, with verdicts, figures and tables.
#
# ## What to try next
#
# - Set `"activation": "tanh"` in the network, and give the study another name and folder. Does the verdict stand?
# - Set `"every_epochs": 1` and `"epochs": 30`. Does alignment go on to rise, or does it fall again?
# - Put a third rule into the comparison: `rules=["bp", "dfa", "shallow"]`. `shallow` trains the output layer alone, so
#   it says how much there is to gain from aligning at all.
# - Add a claim. Two claims share one chance of error, so each needs more seeds. `study_plan` says when there are too
#   few.
