"""Where cohorts run: checks, worker processes, pilots, estimates, progress."""
