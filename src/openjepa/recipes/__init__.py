"""Recipes, one file a system: modules with `Config` and `build(config, context) -> Experiment`."""
