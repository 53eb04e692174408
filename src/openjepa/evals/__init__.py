"""Did training help? Probes, similarity and triplets, always beside baselines."""
