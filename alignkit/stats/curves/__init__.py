"""Dose-response, thresholds, phases and comparisons at equal loss."""
