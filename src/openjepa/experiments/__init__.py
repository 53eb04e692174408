"""The usual experiment of a recipe on texts or on images: data, batches, embedding, tasks."""
