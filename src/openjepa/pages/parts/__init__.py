"""What all pages that OpenJEPA writes have in common: one self-contained file, light and dark, no script.

`document` wraps and tabulates, `chart` draws lines, dots and intervals as SVG, on an `axis`, `images` puts pictures
into the page itself. Colours are in base.css alone, as variables with a light and a dark value; nothing here knows what
is shown.
"""
