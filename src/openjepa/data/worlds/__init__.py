"""Synthetic worlds: data generated from known factors, so that meaning can be measured against surface."""

from __future__ import annotations

from typing import Any

WORLDS = ("arithmetic", "scenes", "stories")


def reads_a_world(config: Any) -> bool:
    """Whether a recipe's configuration takes its data from a synthetic world."""
    return getattr(getattr(config, "data", None), "source", None) in WORLDS
