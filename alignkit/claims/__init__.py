"""What the records say of claims: comparisons, verdicts, power, recommendations, and their words."""
