"""Images with captions: what is read from files in COCO's schema, what is counted, and what a batch says."""

from __future__ import annotations

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

from openjepa.core.errors import UserError
from openjepa.core.experiment import Row
from openjepa.core.method import Latents
from openjepa.core.seeding import generator_for
from openjepa.data.augment import AugmentConfig
from openjepa.data.caption_batches import CaptionCollator, CaptionedBatch
from openjepa.data.caption_tasks import image_skills
from openjepa.data.captions import CaptionDataConfig, CaptionedImages
from openjepa.data.coco_objects import largest_objects, object_tasks
from openjepa.data.image_batches import MaskedImageCollator
from openjepa.data.images import KEPT
from openjepa.data.tokenizer import TextTokenizer, TokenizerConfig, train_tokenizer
from openjepa.data.worlds.scenes import Scenes
from openjepa.health.skill import skill
from openjepa.masking.blocks import BlockMasker

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
    return CaptionDataConfig(source=str(tmp_path / "photos"), captions=written(tmp_path, annotations), size=SIZE,
                             **{"eval_fraction": 0.3, **more})  # fmt: skip


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
        by_pixels = {image.tobytes(): int(Path(place).stem) for image, place in zip(images, images.places, strict=True)}
        assert [by_pixels[np.asarray(image).tobytes()] % 2 for image in asked] == list(labels)


def test_objects_of_another_source_need_a_file_of_their_own(tmp_path: Path) -> None:
    cfg = config(tmp_path, coco(tmp_path / "photos"), objects="a.json", eval_source="elsewhere")
    assert cfg.object_files is None
    assert cfg.model_copy(update={"eval_objects": "b.json"}).object_files == (Path("a.json"), Path("b.json"))


def test_a_file_without_objects_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"captions\.json is not in COCO's schema: it needs a list 'annotations'"):
        largest_objects(Path(written(tmp_path, coco(tmp_path / "photos"))))


# --- reading


def test_every_image_keeps_its_own_captions(tmp_path: Path) -> None:
    cfg = config(tmp_path, coco(tmp_path / "photos"))
    seen = {}
    for images in both(cfg):
        for index in range(len(images)):
            assert images[index].image.shape == (SIZE, SIZE, 3)
            seen[Path(images.images.place(index)).stem] = images[index].captions
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
        ([], "COCO's schema: it needs a list 'images' of file_name, id"),
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
    with pytest.raises(UserError, match=r"data\.captions=captions\.json"):
        len(CaptionedImages(CaptionDataConfig(source=str(tmp_path / "photos")), "train"))
    with pytest.raises(UserError, match="cannot be read"):
        len(CaptionedImages(CaptionDataConfig(source=str(tmp_path / "photos"), captions="nowhere.json"), "train"))


# --- scenes


@pytest.fixture
def scenes() -> CaptionedImages:
    return CaptionedImages(CaptionDataConfig(size=SIZE, images=60, eval_fraction=0.3), "train")


def test_scenes_come_with_their_captions(scenes: CaptionedImages) -> None:
    world = Scenes("train", 60, pixels=SIZE)
    for index in range(0, len(scenes), 7):
        number = int(scenes.images.place(index).split(":")[1])
        assert np.array_equal(scenes[index].image, world.image(number))
        assert tuple(scenes[index].captions) == world.captions(number)


def test_shuffled_captions_are_those_of_other_images(scenes: CaptionedImages) -> None:
    shuffled, none = scenes.told("shuffled"), scenes.told("none")
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
    return collate([Row(images[i], generator_for(0, "sample", epoch, i), i) for i in range(10)])


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
    batches = [batch_of(scenes.told(text), collate) for text in ("caption", "shuffled", "none")]
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
        parts.append((Latents(guess, target, target, rows=rows), size))
    predicted, target = (torch.cat([getattr(part, name) for part, _ in parts]) for name in ("predicted", "target"))
    items = image_skills(parts)
    assert items.shape == (8,)
    assert items.mean() == pytest.approx(skill(predicted, target))
