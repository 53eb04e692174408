"""What every other layer agrees on: batches, methods, experiments, configuration, seeding, run folders."""
