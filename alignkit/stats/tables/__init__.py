"""Tidy tables: checks, levels of factors, frames."""
