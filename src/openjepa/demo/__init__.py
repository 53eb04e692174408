"""The page of `openjepa demo RUN [RUN ...]`: one module a panel, `render*` for HTML, `page` for the browser.

Panels are plain Python and need no browser; only `page` imports gradio, and `controls` uses it. The panels of a run
depend on its rows and batches, not on its recipe's name (`panels.panels_of`).
"""
