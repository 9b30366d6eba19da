"""How often alignkit's tests and intervals err, by simulated studies whose truth is known.

from alignkit.calibration.run import calibrate
result = calibrate(replicates=1_000, model_replicates=0)
result.outside     # the figures that the simulation contradicts: none
"""

from alignkit.calibration.rates import Calibration, Rate
from alignkit.calibration.report import write_calibration
from alignkit.calibration.run import calibrate
from alignkit.calibration.scenarios import DIVERGING, GRID, SKEWED, Scenario

__all__ = ["DIVERGING", "GRID", "SKEWED", "Calibration", "Rate", "Scenario", "calibrate", "write_calibration"]
