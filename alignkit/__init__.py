"""Measure, test and explain alignment dynamics."""
