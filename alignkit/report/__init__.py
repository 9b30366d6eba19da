"""The report: one HTML page that needs nothing else, its figures as SVG and PDF, its tables as CSV and LaTeX."""

from alignkit.report.page import write_report

__all__ = ["write_report"]
