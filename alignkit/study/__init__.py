"""What is asked: designs, claims, runs and the ids that determine them."""
