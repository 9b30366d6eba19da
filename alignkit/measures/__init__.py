"""What is measured: angles between learning signals, when, and how samples are reduced."""
