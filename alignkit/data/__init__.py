"""Datasets: a source a file, and `loading`, which finds the one that a study asks for."""
