"""Networks with an ensemble axis: weight ops, stages, parameters, losses."""
