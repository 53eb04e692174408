"""Adapt a sentence encoder to documents without labels, by linear maps in closed form behind it.

documents    documents and their parts (sentences or paragraphs), streamed
latents      what the encoder makes of them, kept on disk
statistics   covariance within documents, in one pass and in constant memory
maps         whitening within documents; a linear predictor of the document from a part, for queries
evidence     what can be measured without judgements, on documents held out
decision     which of the candidates is kept, or the start, and why
adapted      the result as a recipe, so that a run folder of it opens like any other
adapt        all of it in order: `openjepa.adapt`
"""
