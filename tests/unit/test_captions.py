"""Images with captions: what is read from files in COCO's schema, what is counted, and what a batch says."""

from __future__ import annotations

import csv
import json
import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from openjepa.core.configure import configure
from openjepa.core.errors import UserError
from openjepa.core.experiment import BuildContext, Sample
from openjepa.core.method import Latents
from openjepa.core.seeding import generator_for
from openjepa.data.captions.batches import CaptionCollator, CaptionedBatch
from openjepa.data.captions.dataset import CaptionDataConfig, CaptionedImages
from openjepa.data.files.readers import Counts
from openjepa.data.images.augment import AugmentConfig
from openjepa.data.images.batches import MaskedImageCollator
from openjepa.data.images.dataset import KEPT
from openjepa.data.tokenizers.choice import TextTokenizer, TokenizerConfig, train_tokenizer
from openjepa.data.worlds.scenes import Scenes
from openjepa.health.skill import skill
from openjepa.masking.blocks import BlockMasker
from openjepa.tasks.captions import image_skills
from openjepa.tasks.objects import largest_objects, object_tasks

SIZE, GRID = 24, (4, 4)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENJEPA_CACHE", str(tmp_path / "cache"))


def coco(folder: Path, count: int = 12) -> dict[str, Any]:
    """Writes `count` pictures and returns annotations of them, two captions each."""
    folder.mkdir(exist_ok=True)
    for number in range(count):
        noise = np.random.default_rng(number).integers(0, 256, (30, 40, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{number:03}.png")
    images = [{"id": 100 + n, "file_name": f"{n:03}.png", "width": 40} for n in range(count)]
    told = [{"id": 2 * n + k, "image_id": 100 + n, "caption": f"picture {n},\nversion {k} "}
            for n in range(count) for k in range(2)]  # fmt: skip
    return {"info": {}, "images": images, "annotations": told}


def written(tmp_path: Path, annotations: Any, name: str = "captions.json") -> str:
    (tmp_path / name).write_text(json.dumps(annotations))
    return str(tmp_path / name)


def config(tmp_path: Path, annotations: Any, **more: Any) -> CaptionDataConfig:
    settings = {"captions": written(tmp_path, annotations), "eval_fraction": 0.3, **more}
    return CaptionDataConfig(source=str(tmp_path / "photos"), size=SIZE, **settings)


def both(cfg: CaptionDataConfig) -> tuple[CaptionedImages, CaptionedImages]:
    return CaptionedImages(cfg, "train"), CaptionedImages(cfg, "eval")


# --- objects


def test_a_picture_is_labelled_by_the_kind_of_its_largest_object(tmp_path: Path) -> None:
    annotations = coco(tmp_path / "photos")
    kinds = {1: "animal", 2: "vehicle"}
    shown = [{"image_id": 100 + n, "category_id": 1 + n % 2, "area": 50.0} for n in range(11)]  # nothing in the last
    smaller = [{"image_id": 100 + n, "category_id": 2 - n % 2, "area": 7.5} for n in range(11)]
    categories = [{"id": number, "supercategory": kind} for number, kind in kinds.items()]
    objects = {"images": annotations["images"], "annotations": smaller + shown, "categories": categories}
    cfg = config(tmp_path, annotations, objects=written(tmp_path, objects, "instances.json"))
    train, held_out = both(cfg)
    assert cfg.object_files is not None
    (task,) = object_tasks(train.images, held_out.images, cfg.object_files, most=100)
    assert task.classes == ("animal", "vehicle")
    assert len(task.train) + len(task.test) == 11
    for images, asked, labels in ((train.images, task.train, task.train_labels),
                                  (held_out.images, task.test, task.test_labels)):  # fmt: skip
        by_pixels = {
            image.tobytes(): int(Path(origin).stem) for image, origin in zip(images, images.origins, strict=True)
        }
        assert [by_pixels[np.asarray(image).tobytes()] % 2 for image in asked] == list(labels)


def test_objects_of_another_source_need_a_file_of_their_own(tmp_path: Path) -> None:
    cfg = config(tmp_path, coco(tmp_path / "photos"), objects="a.json", eval_source="elsewhere")
    assert cfg.object_files is None
    assert cfg.model_copy(update={"eval_objects": "b.json"}).object_files == (Path("a.json"), Path("b.json"))


def test_a_file_without_objects_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"captions\.json is not in COCO's schema: it needs a list 'annotations'"):
        largest_objects(Path(written(tmp_path, coco(tmp_path / "photos"))), Counts())


# --- reading


def test_every_image_keeps_its_own_captions(tmp_path: Path) -> None:
    cfg = config(tmp_path, coco(tmp_path / "photos"))
    seen = {}
    for images in both(cfg):
        for index in range(len(images)):
            assert images[index].image.shape == (SIZE, SIZE, 3)
            seen[Path(images.images.origin(index)).stem] = images[index].captions
    assert seen == {f"{n:03}": [f"picture {n}, version {k}" for k in range(2)] for n in range(12)}


def test_what_is_missing_is_counted(tmp_path: Path) -> None:
    annotations = coco(tmp_path / "photos")
    annotations["annotations"] = [row for row in annotations["annotations"] if row["image_id"] != 103]
    annotations["annotations"] += [{"image_id": 999, "caption": "of nothing"}, {"image_id": 104, "caption": "  "},
                                   {"image_id": 105, "caption": 7}]  # fmt: skip
    (tmp_path / "photos" / "006.png").unlink()
    (tmp_path / "photos" / "007.png").write_bytes(b"broken")
    train, held_out = both(config(tmp_path, annotations))
    assert len(train) + len(held_out) == 9
    assert train.counts == {
        KEPT: 9,
        "image without a caption": 1,
        "caption of an image that is not listed": 1,
        "empty caption": 1,
        "caption is a int": 1,
        "image file is missing": 1,
        "image cannot be decoded": 1,
    }


def test_a_subset_is_the_first_usable_images(tmp_path: Path) -> None:
    cfg = config(tmp_path, coco(tmp_path / "photos"), images=7)
    assert sum(map(len, both(cfg))) == 7
    assert {caption.split(",")[0] for images in both(cfg) for caption in images.texts()} == {
        f"picture {n}" for n in range(7)
    }


def test_held_out_images_may_have_files_of_their_own(tmp_path: Path) -> None:
    coco(tmp_path / "photos")
    other = coco(tmp_path / "others", 3)
    other["annotations"] = [{**row, "caption": "held out"} for row in other["annotations"]]
    cfg = config(tmp_path, coco(tmp_path / "photos"), eval_source=str(tmp_path / "others"),
                 eval_captions=written(tmp_path, other, "others.json"))  # fmt: skip
    train, held_out = both(cfg)
    assert (len(train), len(held_out)) == (12, 3)
    assert set(held_out.texts()) == {"held out"}
    assert "held out" not in set(train.texts())


def test_changed_captions_are_read_again(tmp_path: Path) -> None:
    annotations = coco(tmp_path / "photos")
    assert len(CaptionedImages(config(tmp_path, annotations), "train").captions[0]) == 2
    annotations["annotations"] = annotations["annotations"][::2]
    assert len(CaptionedImages(config(tmp_path, annotations), "train").captions[0]) == 1


@pytest.mark.parametrize("captions", ["one", ["one", "two"]])
def test_a_table_may_hold_images_and_captions(captions: Any, tmp_path: Path) -> None:
    coco(tmp_path / "photos")
    rows = [{"image": {"bytes": file.read_bytes(), "path": None}, "told": captions}
            for file in sorted((tmp_path / "photos").iterdir())]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "table.parquet")
    cfg = CaptionDataConfig(source=str(tmp_path / "table.parquet"), label="told", size=SIZE, eval_fraction=0.3)
    assert CaptionedImages(cfg, "train").captions[0] == ([captions] if isinstance(captions, str) else captions)


@pytest.mark.parametrize(
    ("annotations", "said"),
    [
        ([], "holds no usable image: it is empty"),
        ({"pictures": []}, "COCO's schema: it needs a list 'images' of file_name, id"),
        ({"images": {"id": 1}, "annotations": []}, "COCO's schema: it needs a list 'images' of file_name, id"),
        ("captions", "COCO's schema: it needs a list 'images' of file_name, id"),
        ({"images": [{"id": 1}], "annotations": []}, "a list 'images' of file_name, id"),
        ({"images": [], "annotations": [{"caption": "x"}]}, "a list 'annotations' of caption, image_id"),
        ({"images": [], "annotations": []}, "holds no usable image"),
    ],
)
def test_another_schema_is_refused(annotations: Any, said: str, tmp_path: Path) -> None:
    coco(tmp_path / "photos")
    with pytest.raises(UserError, match=said):
        len(CaptionedImages(config(tmp_path, annotations), "train"))


def test_captions_have_to_be_given(tmp_path: Path) -> None:
    coco(tmp_path / "photos")
    for more in ({}, {"label": "caption"}):  # a folder of images has no column
        with pytest.raises(UserError, match=r"data\.captions=FILE: a \.json in COCO's schema \(images: id, file_name"):
            len(CaptionedImages(CaptionDataConfig(source=str(tmp_path / "photos"), **more), "train"))
    with pytest.raises(UserError, match="cannot be read"):
        len(CaptionedImages(CaptionDataConfig(source=str(tmp_path / "photos"), captions="nowhere.json"), "train"))


def test_rows_of_other_types_are_left_out_and_counted(tmp_path: Path) -> None:
    """Lists, nulls and numbers where something else should be: the rest is read as ever."""
    annotations = coco(tmp_path / "photos")
    usable = [*annotations["images"]]
    annotations["images"] += [
        None, [1, 2], {"id": 1}, {"id": [1], "file_name": "000.png"}, {"id": None, "file_name": "000.png"},
        {"id": 2, "file_name": None}, {"id": 3, "file_name": ["000.png"]}, {"id": 4, "file_name": 5}, usable[0],
    ]  # fmt: skip
    annotations["annotations"] += [
        "a caption", {"image_id": [100], "caption": "x"}, {"image_id": {}, "caption": "x"}, {"caption": "x"},
        {"image_id": True, "caption": "x"}, {"image_id": 100, "caption": ["x", "y"]},
        {"image_id": 100, "caption": None}, {"image_id": 100, "caption": 1.5},
    ]  # fmt: skip
    train, held_out = both(config(tmp_path, annotations))
    assert len(train) + len(held_out) == 12
    assert all(len(captions) == 2 for images in (train, held_out) for captions in images.captions)
    assert train.counts == {
        KEPT: 12,
        "images: a NoneType where an object should be": 1,
        "images: a list where an object should be": 1,
        "images: without 'file_name'": 1,
        "images: 'id' is a list": 1,
        "images: 'id' is null": 1,
        "images: 'file_name' is null": 1,
        "images: 'file_name' is a list": 1,
        "images: 'file_name' is a int": 1,
        "image listed twice": 1,
        "annotations: a str where an object should be": 1,
        "annotations: 'image_id' is a list": 1,
        "annotations: 'image_id' is a dict": 1,
        "annotations: without 'image_id'": 1,
        "annotations: 'image_id' is a bool": 1,
        "caption is a list": 1,
        "caption is a float": 1,
        "empty caption": 1,
    }


OUTSIDE_NAMES = [
    "../secret.png",
    "a/../../secret.png",
    "/etc/secret.png",
    "C:\\secret.png",
    "..\\secret.png",
    "//h/s/x.png",
]


@pytest.mark.parametrize("name", OUTSIDE_NAMES)
def test_file_names_that_lead_out_of_the_folder_are_refused(name: str, tmp_path: Path) -> None:
    annotations = coco(tmp_path / "photos")
    Image.new("RGB", (30, 30), "red").save(tmp_path / "secret.png")
    name = name.replace("/etc/secret.png", str(tmp_path / "secret.png"))
    rows = [{"image": row["file_name"], "caption": "told"} for row in annotations["images"]]
    (tmp_path / "table.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in [*rows, {**rows[0], "image": name}])
    )
    annotations["images"].append({"id": 1, "file_name": name})
    annotations["annotations"].append({"image_id": 1, "caption": "a secret"})
    for captions in (written(tmp_path, annotations), str(tmp_path / "table.jsonl")):
        train, held_out = both(config(tmp_path, annotations, captions=captions))
        assert train.counts == {KEPT: 12, "image file outside of data.source": 1}
        assert not any("secret" in origin for images in (train, held_out) for origin in images.images.origins)


def test_objects_of_other_types_are_left_out_and_counted(tmp_path: Path) -> None:
    objects = {
        "images": [{"id": n, "file_name": f"{n}.png"} for n in range(3)] + [{"id": [1], "file_name": "x"}],
        "categories": [{"id": 1, "supercategory": "animal"}, {"id": 2, "supercategory": None}],
        "annotations": [{"image_id": 0, "category_id": 1, "area": 5}, {"image_id": 1, "category_id": 7, "area": 5}]
        + [{"image_id": 2, "category_id": 1, "area": area} for area in (None, "5", [5], True)]
        + [{"image_id": 2, "category_id": [1], "area": 5}],
    }
    counts = Counts()
    assert largest_objects(Path(written(tmp_path, objects)), counts) == {"0.png": "animal"}
    assert counts == {
        "images: 'id' is a list": 1,
        "categories: 'supercategory' is null": 1,
        "annotations: 'area' is null": 1,
        "annotations: 'area' is a str": 1,
        "annotations: 'area' is a list": 1,
        "annotations: 'area' is a bool": 1,
        "annotations: 'category_id' is a list": 1,
        "object of a category that is not listed": 1,
    }


# --- captions in a table


def table(folder: Path, kind: str, columns: tuple[str, str], rows: list[tuple[str, Any]]) -> str:
    """A file of captions of this kind."""
    file = folder / f"told.{kind}"
    if kind in ("tsv", "csv"):
        with file.open("w", newline="") as stream:
            writer = csv.writer(stream, delimiter="\t" if kind == "tsv" else ",")
            writer.writerows([columns, *rows])
    elif kind == "parquet":
        pq.write_table(pa.Table.from_pylist([dict(zip(columns, row, strict=True)) for row in rows]), file)
    else:
        objects = [dict(zip(columns, row, strict=True)) for row in rows]
        text = json.dumps(objects) if kind == "json" else "\n".join(map(json.dumps, objects))
        file.write_text(text)
    return str(file)


@pytest.mark.parametrize("kind", ["tsv", "csv", "jsonl", "json", "parquet"])
def test_captions_may_come_in_a_table(kind: str, tmp_path: Path) -> None:
    """A line a caption; several lines for an image; file names relative to the folder; what is wrong is counted."""
    coco(tmp_path / "photos")
    (tmp_path / "photos" / "more").mkdir()
    (tmp_path / "photos" / "011.png").rename(tmp_path / "photos" / "more" / "011.png")
    names = [f"{n:03}.png" for n in range(11)] + ["more/011.png"]
    rows = [(name, f'picture {name}, "version" {k}') for k in range(2) for name in names]
    wrong = [("none.png", "of nothing"), ("../000.png", "outside"), ("", "nameless"), ("000.png", "")]
    captions = table(tmp_path, kind, ("image", "caption"), [*rows, *wrong])
    cfg = CaptionDataConfig(source=str(tmp_path / "photos"), captions=captions, size=SIZE, eval_fraction=0.3)
    seen = {}
    for images in both(cfg):
        for index in range(len(images)):
            name = str(Path(images.images.origin(index)).relative_to(tmp_path / "photos"))
            seen[name] = images[index].captions
    assert seen == {name: [f'picture {name}, "version" {k}' for k in range(2)] for name in names}
    assert CaptionedImages(cfg, "train").counts == {
        KEPT: 12,
        "image file is missing": 1,
        "image file outside of data.source": 1,
        "file name of an image is missing": 1,
        "empty caption": 1,
    }


def test_columns_of_a_table_are_named_by_settings(tmp_path: Path) -> None:
    coco(tmp_path / "photos")
    rows = [(f"{n:03}.png", [f"picture {n}", f"again {n}"]) for n in range(12)]
    captions = table(tmp_path, "jsonl", ("file_name", "texts"), rows)
    cfg = CaptionDataConfig(source=str(tmp_path / "photos"), captions=captions, size=SIZE, eval_fraction=0.3)
    with pytest.raises(UserError, match=r"no column 'image'; set data\.column to one of: file_name, texts"):
        len(CaptionedImages(cfg, "train"))
    named = cfg.model_copy(update={"column": "file_name", "label": "texts"})
    assert all(len(captions) == 2 for captions in CaptionedImages(named, "train").captions)
    captions = table(tmp_path, "tsv", ("image", "text"), [(name, "told") for name, _ in rows])
    with pytest.raises(UserError, match=r"no column 'caption'; set data\.label to one of: image, text"):
        len(CaptionedImages(cfg.model_copy(update={"captions": captions}), "train"))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("told.txt", "000.png a caption", "no kind that is read"),
        ("told.json", "{broken", "cannot be read"),
        ("told.json", '{"a": ' * 100_000, "cannot be read"),
        ("told", "x", "no kind that is read"),
        ("told.pkl", "x", "no kind that is read"),
    ],
)
def test_other_files_are_refused_in_a_line_that_names_both_forms(
    name: str, content: str, said: str, tmp_path: Path
) -> None:
    coco(tmp_path / "photos")
    (tmp_path / name).write_text(content)
    cfg = CaptionDataConfig(source=str(tmp_path / "photos"), captions=str(tmp_path / name), size=SIZE)
    with pytest.raises(UserError, match=said) as error:
        len(CaptionedImages(cfg, "train"))
    assert "COCO's schema (images: id, file_name; annotations: image_id, caption)" in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500


def test_a_preset_without_data_says_what_to_give_before_anything_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any) -> None:
        raise AssertionError("something is loaded")

    module, settings = configure("vl_jepa", "paper")
    for name in ("load_or_learn", "build_vision", "build_reader"):
        monkeypatch.setattr(module, name, refuse)
    said = r"data\.source=FOLDER \(images\) and data\.captions=FILE: a \.json in COCO's schema \(images: id, file_name"
    with pytest.raises(UserError, match=said):
        module.build(settings, BuildContext(tmp_path))
    _, settings = configure("vl_jepa", "paper", None, ["data.source=photos"])
    with pytest.raises(UserError, match=r"no setting names the captions of photos; give data\.captions=FILE"):
        module.build(settings, BuildContext(tmp_path))
    _, settings = configure("vl_jepa", "paper", None, ["data.source=scenes"])
    with pytest.raises(AssertionError, match="something is loaded"):
        module.build(settings, BuildContext(tmp_path))


# --- scenes


@pytest.fixture
def scenes() -> CaptionedImages:
    return CaptionedImages(CaptionDataConfig(size=SIZE, images=60, eval_fraction=0.3), "train")


def test_scenes_come_with_their_captions(scenes: CaptionedImages) -> None:
    world = Scenes("train", 60, pixels=SIZE)
    for index in range(0, len(scenes), 7):
        number = int(scenes.images.origin(index).split(":")[1])
        assert np.array_equal(scenes[index].image, world.image(number))
        assert tuple(scenes[index].captions) == world.captions(number)


def test_shuffled_captions_are_those_of_other_images(scenes: CaptionedImages) -> None:
    shuffled, none = scenes.with_captions("shuffled"), scenes.with_captions("none")
    assert all(shuffled[i].captions != scenes[i].captions for i in range(len(scenes)))
    assert Counter(map(tuple, (shuffled[i].captions for i in range(len(scenes))))) == Counter(
        map(tuple, scenes.captions)
    )
    assert all(len(none[i].captions) == 0 for i in range(len(scenes)))
    assert all(np.array_equal(shuffled[i].image, scenes[i].image) for i in range(len(scenes)))


def test_a_set_can_be_sent_to_a_worker(scenes: CaptionedImages) -> None:
    assert len(scenes.captions) == len(scenes)
    sent = pickle.dumps(scenes)
    assert len(sent) < 2000
    assert pickle.loads(sent)[3].captions == scenes[3].captions


# --- batches


@pytest.fixture
def tokenizer(scenes: CaptionedImages) -> TextTokenizer:
    return train_tokenizer(TokenizerConfig(vocab_size=400), scenes.texts())


@pytest.fixture
def collate(tokenizer: TextTokenizer) -> CaptionCollator:
    return CaptionCollator(MaskedImageCollator(GRID, BlockMasker(0.6), AugmentConfig()), tokenizer, 32)


def batch_of(images: CaptionedImages, collate: CaptionCollator, epoch: int = 0) -> CaptionedBatch:
    return collate([Sample(images[i], generator_for(0, "sample", epoch, i), i) for i in range(10)])


def test_a_batch_holds_one_caption_of_each_image(scenes: CaptionedImages, collate: CaptionCollator) -> None:
    chosen = Counter()
    for epoch in range(20):
        batch = batch_of(scenes, collate, epoch)
        for row, (ids, valid) in enumerate(zip(batch.text_ids, batch.text_valid, strict=True)):
            known = [collate.tokenizer.decode(one) for one in collate.encode(scenes[row].captions)]
            chosen[known.index(collate.tokenizer.decode(ids[valid].tolist()))] += 1
            assert (ids[~valid] == collate.tokenizer.pad_id).all()
    assert set(chosen) == set(range(5))
    assert max(chosen.values()) < 0.35 * chosen.total()


def test_the_text_changes_no_mask(scenes: CaptionedImages, collate: CaptionCollator) -> None:
    batches = [batch_of(scenes.with_captions(text), collate) for text in ("caption", "shuffled", "none")]
    assert all(torch.equal(batch.hidden, batches[0].hidden) for batch in batches)
    assert all(torch.equal(batch.images, batches[0].images) for batch in batches)
    assert not torch.equal(batches[0].text_ids[:, :3], batches[1].text_ids[:, :3])
    assert batches[2].text_ids.shape == batches[2].text_valid.shape == (10, 0)


def test_long_captions_are_cut(scenes: CaptionedImages, collate: CaptionCollator) -> None:
    short = CaptionCollator(collate.images, collate.tokenizer, 5)
    assert batch_of(scenes, short).text_ids.shape[1] == 5


def test_image_skills_average_to_the_skill() -> None:
    generator = generator_for(0, "test")
    parts = []
    for size in (3, 5):
        rows = torch.arange(size).repeat_interleave(torch.arange(1, size + 1))
        target = torch.randn(len(rows), 4, generator=generator)
        guess = target + torch.randn(len(rows), 4, generator=generator)
        parts.append((Latents(guess, target), rows, size))
    predicted, target = (torch.cat([getattr(part, name) for part, *_ in parts]) for name in ("predicted", "target"))
    items = image_skills(parts)
    assert items.shape == (8,)
    assert items.mean() == pytest.approx(skill(predicted, target))
