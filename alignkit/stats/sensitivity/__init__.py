"""What a result hangs on: scales, choices of analysis, runs that are missing."""
