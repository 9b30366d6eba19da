"""The summaries of published work: one seed's angles, with their spread over samples."""

from __future__ import annotations

import pandas as pd

from alignkit.records.rows import last_layers, require_records
from alignkit.records.store import Records


def published_summary(records: Records, *, best_by: str = "train_accuracy") -> pd.DataFrame:
    """What a paper that reports one seed would print: a row per arm and hidden layer.

    Of each arm's seeds the one with the highest `best_by` (a column of `runs`) is taken: `signal_cosine` and
    `samples_sd` are the mean of its last measurement and the standard deviation **over samples**. Accuracies, in %,
    are the mean and standard deviation over `seeds` seeds. `seeds_sd` is the standard deviation of the cosine over
    seeds, which such tables lack: NaN with one seed.

    A known defect, kept to be compared with: the spread over samples says nothing of other networks, and the best
    seed was chosen for what it scored. For inference take `compare`, in which the replicate is the seed.
    """
    require_records(records)
    last = last_layers(records)
    runs = records.runs.assign(arm=records.runs["rule"] + " | " + records.runs["cell"])
    rows = []
    for _, own in runs.groupby("arm", sort=False):
        finished = own.dropna(subset=[best_by])
        chosen = (finished if len(finished) else own).sort_values([best_by, "seed"], ascending=[False, True]).iloc[0]
        spread = last[last["run_id"].isin(own["run_id"])].groupby("layer")["signal_cosine"].std()
        accuracies = {
            f"{split}_accuracy{suffix}": 100 * float(getattr(own[f"{split}_accuracy"], how)())
            for split in ("train", "test")
            for suffix, how in (("", "mean"), ("_sd", "std"))
        }
        for _, layer in last[last["run_id"] == chosen["run_id"]].sort_values("layer").iterrows():
            rows.append(
                {
                    "rule": chosen["rule"], "cell": chosen["cell"], **{name: chosen[name] for name in records.factors},
                    "seed": chosen["seed"], "seeds": len(own), "layer": int(layer["layer"]),
                    "signal_cosine": layer["signal_cosine"], "samples_sd": layer["signal_cosine_sd"],
                    "seeds_sd": float(spread[layer["layer"]]), **accuracies,
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


def at_end(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of each run's last checkpoint."""
    return table[table["step"] == table.groupby("run_id")["step"].transform("max")]
