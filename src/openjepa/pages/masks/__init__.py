"""The page of `openjepa masks`: what a recipe hides and shows of real samples, and figures that say if masks are fair.

`sampling` draws masks as training does, `figures` measures them, `draw` and `html` show them. Nothing here knows a
recipe: any batch with `hidden` and `valid` [B, N] bool can be looked at. It may also have `shown` [B, N] bool (else
everything that is valid and not hidden is shown) and `times_hidden` [B, N] (how many hidden blocks hold each position);
`Experiment.pictures` says what rows look like, and without it masks are shown as bare positions.
"""
