"""Launay, Poli and Krzakala (2019, arXiv:1906.04554), checked claim by claim: published, as published, corrected."""

from alignkit.papers.launay2019.page import write_paper_report

__all__ = ["write_paper_report"]
