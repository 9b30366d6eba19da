"""How a cohort trains and is measured."""
