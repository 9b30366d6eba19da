"""Properties of what has many inputs, on examples that Hypothesis finds: the same ones in every run."""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, settings
from hypothesis.internal.conjecture import providers

settings.register_profile(
    "alignkit",
    derandomize=True,
    deadline=None,
    max_examples=50,
    phases=[phase for phase in Phase if phase is not Phase.explain],  # minutes, where an example is a study
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("alignkit")

# Hypothesis also draws constants from the code of all modules that are loaded: which, the tests that ran before decide.
providers._get_local_constants = lambda: providers._local_constants
