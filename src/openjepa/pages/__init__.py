"""HTML pages: one self-contained file each, light and dark, no script."""
