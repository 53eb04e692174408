"""The page of `openjepa masks`: a recipe's masks over real samples, and figures that show biases of masks.

`sampling` draws masks as training does, `figures` measures them, `draw` and `html` draw them. Nothing here depends on a
recipe: any batch with `hidden` and `valid` [B, N] bool will do. It may also have `shown` [B, N] bool (else all that is
valid and not hidden is visible) and `times_hidden` [B, N] (how many hidden blocks contain each position);
`Experiment.pictures` draws rows, and without it masks are drawn as bare positions.
"""
