"""What every kind of data shares: caches, held-out shares, batch plans and the loader."""
