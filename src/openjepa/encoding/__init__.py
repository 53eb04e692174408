"""From what users give to vectors: objects in memory, or a file of any size."""
