"""Labels for probes of COCO's photographs: of what kind is the largest object in the picture?

    data.objects=annotations/instances_train2017.json  data.eval_objects=annotations/instances_val2017.json

The kind is COCO's supercategory (person, animal, vehicle, ...; 12 of them), size is the area of the segmented object.
Pictures without an object are left out. Probes learn on training images and are tested on held-out ones.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from openjepa.core.errors import UserError
from openjepa.core.tasks import Classification
from openjepa.data.images import ImageSet

NEEDED = {
    "images": {"id", "file_name"},
    "annotations": {"image_id", "category_id", "area"},
    "categories": {"id", "supercategory"},
}


def object_tasks(train: ImageSet, held_out: ImageSet, files: tuple[Path, Path], most: int) -> list[Classification]:
    """The task "object", learnt on up to `most` training images; none if fewer than two kinds can be learnt.

    Raises UserError for a file in another schema.
    """
    learnt, asked = (
        labelled(images, largest_objects(file)) for images, file in zip((train, held_out), files, strict=True)
    )
    learnt = learnt[:most]
    kinds = tuple(sorted({kind for _, kind in learnt}))
    asked = [(image, kind) for image, kind in asked if kind in kinds]
    if len(kinds) < 2 or not asked:
        return []
    (images, labels), (others, truth) = zip(*learnt, strict=True), zip(*asked, strict=True)
    return [Classification("object", images, [*map(kinds.index, labels)], others, [*map(kinds.index, truth)], kinds)]


def labelled(images: ImageSet, kinds: dict[str, str]) -> list[tuple[Any, str]]:
    """Images [S, S, 3] that have a kind, found by the name of their file, each with it."""
    names = [Path(place).name for place in images.places]
    return [(image, kinds[name]) for image, name in zip(images.pixels, names, strict=True) if name in kinds]


def largest_objects(file: Path) -> dict[str, str]:
    """File name of each image that shows an object -> supercategory of the largest one."""
    data = _read(file)
    kinds = {row["id"]: row["supercategory"] for row in data["categories"]}
    largest: dict[Any, dict[str, Any]] = {}
    for row in data["annotations"]:
        best = largest.get(row["image_id"])
        if best is None or row["area"] > best["area"]:
            largest[row["image_id"]] = row
    return {
        row["file_name"]: kinds[largest[row["id"]]["category_id"]] for row in data["images"] if row["id"] in largest
    }


def _read(file: Path) -> dict[str, list[dict[str, Any]]]:
    try:
        data = json.loads(file.expanduser().read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"objects file {file} cannot be read ({error})") from error
    for section, keys in NEEDED.items():
        rows = data.get(section) if isinstance(data, dict) else None
        if not isinstance(rows, list) or not all(isinstance(row, dict) and keys <= row.keys() for row in rows):
            raise UserError(f"{file} is not in COCO's schema: it needs a list {section!r} of {', '.join(sorted(keys))}")
    return data
