"""The page of `openjepa demo RUN...`: one module a panel, `render*` for HTML, `controls` and `page` for the browser.

Panels are plain Python and need no browser; only `page` imports gradio. The panels of a run depend on its rows and
batches, not on its recipe's name (`panels.panels_of`).
"""
