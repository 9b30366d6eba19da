"""Factorial, mixed and marginal models, and what is read off them."""
