"""Writing of pages, atomically, so that a browser never loads an incomplete one."""

from __future__ import annotations

from pathlib import Path

from openjepa.core.atomic import replaced_file, writing
from openjepa.core.errors import UserError
from openjepa.pages.run.page import run_page
from openjepa.pages.study import study_page
from openjepa.studies.results import RESULTS

PAGE = "report.html"


def write_report(folder: Path, out: Path | None = None, device: str = "auto", precision: str = "auto") -> Path:
    """The page of a run or a study, written to `out` or into the folder.

    `device` and `precision` are those of the run's networks, see `api.load`. Raises UserError if it is neither."""
    if (folder / RESULTS).is_file():
        page = study_page(folder)
    elif (folder / "config.yaml").is_file():
        page = run_page(folder, device, precision)
    else:
        raise UserError(
            f"{folder} is neither a run (no config.yaml in it) nor a finished study (no {RESULTS} in it); "
            "a study writes its results when its cells are done"
        )
    return write_page(page, out or folder / PAGE)


def write_page(page: str, file: Path) -> Path:
    """Write to a temporary file, then rename it. Raises WriteError if the disk does not take it."""
    with writing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
    with replaced_file(file) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return file
