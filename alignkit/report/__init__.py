"""The report: one HTML page that needs nothing else, its figures as SVG and PDF, its tables as CSV and LaTeX."""

from alignkit.claims.analysis import Analysis, analyse
from alignkit.figures.chart import Chart, drawing
from alignkit.report.page import write_report
from alignkit.report.section import Answer, question
from alignkit.report.tables import Table

__all__ = ["Analysis", "Answer", "Chart", "Table", "analyse", "drawing", "question", "write_report"]
