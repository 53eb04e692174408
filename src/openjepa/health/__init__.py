"""Is this run alive? Metrics, skill, a verdict with advice, and the leak audit."""
