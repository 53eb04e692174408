"""One file a system. A recipe is a module with `Config` and `build(config, context) -> Experiment`."""
