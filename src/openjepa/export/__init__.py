"""Exports: a run's encoder in the formats of other libraries, proven to give the run's own vectors."""
