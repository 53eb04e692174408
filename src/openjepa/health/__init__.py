"""The health of a run: metrics, skill, and a verdict with advice."""
