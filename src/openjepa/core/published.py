"""Runs on the Hugging Face hub: where their files are in a repository, and how a run is opened by its name there.

A repository that `openjepa push` made is a model of another library at its top, and the run in the folder `openjepa/`.
"""

from __future__ import annotations

import os
from pathlib import Path

from openjepa.core import hub
from openjepa.core.errors import UserError

RUN_FOLDER = "openjepa"  # of a repository


def folder_of(name: str | Path) -> Path:
    """The run folder `name`, or that of a hub repository "owner/name" on this machine, downloaded if need be.

    Raises UserError if neither is there.
    """
    path = Path(name)
    if os.path.exists(path) or path.is_absolute() or len(path.parts) != 2 or not hub.is_repository(path.as_posix()):
        return path
    return _downloaded(path.as_posix())


def _downloaded(name: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        with hub.reaching():
            snapshot = Path(snapshot_download(name, allow_patterns=[f"{RUN_FOLDER}/*"]))
    except Exception as error:  # the client's own and httpx's share no base class
        raise UserError(f"{name} is not a run folder here, and {hub.failure(error, 'model')}") from error
    folder = snapshot / RUN_FOLDER
    if not folder.is_dir():
        raise UserError(f"the hub's model {name} holds no run of OpenJEPA (no folder {RUN_FOLDER}/ in it)")
    return folder
