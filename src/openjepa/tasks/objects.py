"""Labels for probes of COCO's photographs: the kind of the largest object in the picture.

    data.objects=annotations/instances_train2017.json  data.eval_objects=annotations/instances_val2017.json

The kind is COCO's supercategory (person, animal, vehicle, ...; 12 of them), size is the area of the segmented object.
Pictures without an object are left out. Probes are fitted on training images and tested on held-out ones.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from openjepa.core.remarks import remark
from openjepa.core.tasks import Classification
from openjepa.data.captions.coco import ID, NUMBER, TEXT, read_coco
from openjepa.data.files.readers import Counts
from openjepa.data.images.dataset import ImageSet
from openjepa.tasks.images import Labelled, label_tasks

OBJECTS = {  # what is read of COCO's schema
    "images": {"id": ID, "file_name": TEXT},
    "annotations": {"image_id": ID, "category_id": ID, "area": NUMBER},
    "categories": {"id": ID, "supercategory": TEXT},
}


def object_tasks(train: ImageSet, held_out: ImageSet, files: tuple[Path, Path], most: int) -> list[Classification]:
    """The task "object", fitted on up to `most` training images; none if these show fewer than two kinds.

    Remarks on what was left out of the files. Raises UserError for a file in another schema.
    """
    counts = Counts()
    kinds = {file: largest_objects(file, counts) for file in dict.fromkeys(files)}  # both may be one file
    if counts:
        remark(f"data.objects: {counts.reasons}")
    fitted, tested = (labelled(images, kinds[file]) for images, file in zip((train, held_out), files, strict=True))
    return label_tasks("object", fitted[:most], tested)


def labelled(images: ImageSet, kinds: dict[str, str]) -> list[Labelled]:
    """Images [S, S, 3] that have a kind, by the name of their file, each with its kind."""
    names = [Path(origin).name for origin in images.origins]
    return [(image, kinds[name]) for image, name in zip(images.pixels, names, strict=True) if name in kinds]


def largest_objects(file: Path, counts: Counts) -> dict[str, str]:
    """File name of each image that shows an object -> supercategory of the largest one; unusable rows are counted."""
    data = read_coco(file, "objects", OBJECTS, counts)
    kinds = {row["id"]: row["supercategory"] for row in data["categories"]}
    largest: dict[Any, dict[str, Any]] = {}
    for row in data["annotations"]:
        if row["category_id"] not in kinds:
            counts.add("object of a category that is not listed", f"{file.name}:image {row['image_id']}")
            continue
        best = largest.get(row["image_id"])
        if best is None or row["area"] > best["area"]:
            largest[row["image_id"]] = row
    return {
        Path(row["file_name"]).name: kinds[largest[row["id"]]["category_id"]]
        for row in data["images"]
        if row["id"] in largest
    }
