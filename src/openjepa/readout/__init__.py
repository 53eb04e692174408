"""The readout of a run: a small decoder from latents to text, which measures how much of it the latents encode."""
