"""The readout of a run: a small decoder that turns latents back into text, and how much of it the latents held."""
