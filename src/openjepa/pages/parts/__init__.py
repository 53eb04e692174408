"""Parts of all pages that OpenJEPA writes.

`document` makes pages and tables, `chart` draws lines, dots and intervals as SVG, on an `axis`, `images` embeds
pictures. Colours are only in base.css, as variables with a light and a dark value. Nothing here depends on the content.
"""
