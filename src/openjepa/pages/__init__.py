"""Pages that people look at: one self-contained HTML file each, light and dark, no script."""
