"""Images with captions: pairs, batches, and the latents of frozen encoders kept on disk."""
