"""Association, mediation and variance components."""
