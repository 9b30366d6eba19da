"""The fully connected CIFAR-10 network of Launay, Poli and Krzakala (2019) under real DFA."""

from __future__ import annotations

import pandas as pd
import pytest

from alignkit.data import loading
from alignkit.execution.checks import plan_cohorts
from alignkit.study.plan import expand
from alignkit.study.study import Study
from alignkit.training.loop import train_cohort


@pytest.mark.slow
def test_early_alignment_and_accuracy_on_cifar10(cifar10):
    study = Study.parse(
        {
            "name": "protocol", "rules": ["dfa"], "seeds": 6,
            "data": {
                "name": "images", "path": str(cifar10), "validation": 0,
                "mean": [0.4914, 0.4822, 0.4465], "std": [0.2023, 0.1994, 0.2010],
            },
            "network": {"width": 800, "depth": 3, "activation": "tanh"},
            # 5e-4 x 128 = 0.064 in mean convention for the hidden layers, 5e-4 for the output layer
            "training": {"lr": 5e-4, "reduction": "sum", "output_reduction": "mean", "batch_size": 128, "epochs": 2},
            "feedback": {"sharing": "sliced"},
            # 1,024 images are eight probes of 128: one alone moves a mean by .01 to .03, as three seeds do
            "probe": {"samples": 1024, "measures": ["signal"], "log_steps": 0, "evaluation_samples": 0},
        }
    )  # fmt: skip
    dataset = loading.load(study.data)
    planned = plan_cohorts(expand(study, fingerprint=loading.fingerprint), device="cpu")
    found = [train_cohort(cohort, dataset) for cohort in planned]
    layers, checkpoints = (pd.concat(tables[name] for tables in found) for name in ("layers", "checkpoints"))
    cosine = layers.groupby(["epoch", "layer"])["signal_cosine"].mean()
    accuracy = 100 * checkpoints.groupby("epoch")["test_accuracy"].mean()
    print(cosine, accuracy)
    for epoch, cosines, points in ((1, (0.24, 0.11, 0.04), 30.0), (2, (0.41, 0.21, 0.08), 36.6)):
        for layer, (wanted, tolerance) in enumerate(zip(cosines, (0.03, 0.03, 0.02), strict=True), start=1):
            assert cosine[epoch, layer] == pytest.approx(wanted, abs=tolerance)
        assert accuracy[epoch] == pytest.approx(points, abs=1.5)
