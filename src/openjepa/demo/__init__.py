"""The page of `openjepa demo RUN`: one module a question, `render` for how answers look, `page` for the browser.

What is asked and answered is plain Python and needs no browser; only `page` imports gradio. Which questions a run can
answer is decided by what its rows and batches are, never by its recipe's name (`panels.panels_of`).
"""
