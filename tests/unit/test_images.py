"""Image data: what a file holds becomes a picture or a count; what is decoded once stays; tasks and inputs follow."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from openjepa.core.errors import UserError
from openjepa.data.decode import decode, quiet
from openjepa.data.image_records import ImageDataConfig, image_files
from openjepa.data.image_tasks import image_tasks
from openjepa.data.images import ImageSet, load_images, raw_pixels, source_key, train_and_eval
from openjepa.data.readers import Counts

S = 16


def encoded(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape or (S, S, 3), dtype=np.uint8)


def read(value: object) -> tuple[np.ndarray | None, Counts]:
    counts = Counts()
    with quiet():
        return decode(value, S, "here", counts), counts


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says it is huge."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


# --- decoding


def test_a_picture_of_the_right_size_is_not_touched() -> None:
    array = noise(0)
    for value in (array, encoded(Image.fromarray(array)), {"bytes": encoded(Image.fromarray(array)), "path": None}):
        image, counts = read(value)
        assert image is not None
        assert np.array_equal(image, array)
        assert not counts
    assert np.array_equal(read(Image.fromarray(array))[0], array)


def test_the_middle_square_is_taken() -> None:
    wide = np.zeros((S, 3 * S, 3), np.uint8)
    wide[:, S : 2 * S] = noise(1)
    assert np.array_equal(read(wide)[0], noise(1))
    assert np.array_equal(read(wide.transpose(1, 0, 2))[0], noise(1).transpose(1, 0, 2))


@pytest.mark.parametrize(
    ("mode", "value", "expected", "mended"),
    [
        ("CMYK", (0, 255, 255, 0), (255, 0, 0), ["mended: CMYK"]),
        ("L", 77, (77, 77, 77), []),
        ("1", 1, (255, 255, 255), []),
        ("RGBA", (10, 20, 30, 0), (255, 255, 255), ["mended: transparent, laid on white"]),
        ("RGBA", (10, 20, 30, 255), (10, 20, 30), ["mended: transparent, laid on white"]),
        ("LA", (50, 255), (50, 50, 50), ["mended: transparent, laid on white"]),
        ("I;16", 0x8080, (128, 128, 128), ["mended: more than 8 bits"]),
    ],
)
def test_every_mode_becomes_rgb(mode: str, value: object, expected: tuple, mended: list[str]) -> None:
    format = "TIFF" if mode == "CMYK" else "PNG"
    image, counts = read(encoded(Image.new(mode, (S, S), value), format))
    assert image is not None
    assert np.abs(image.astype(int) - expected).max() <= 2
    assert list(counts) == mended


def test_an_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (S, S), colour) for colour in ("red", "blue", "green")]
    image, counts = read(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert image is not None
    assert tuple(image[0, 0]) == (255, 0, 0)
    assert "mended: animated, first frame taken" in counts


def test_a_photograph_is_turned_upright() -> None:
    array = np.zeros((S, 2 * S, 3), np.uint8)
    array[:, :S, 0] = 255  # left half red
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    image = Image.fromarray(array)
    turned = np.asarray(Image.open(io.BytesIO(encoded(image, "PNG", exif=exif))))
    assert np.array_equal(turned, array)  # Pillow itself does not turn
    found, _ = read(encoded(image.resize((S, S)), "PNG", exif=exif))
    assert found is not None
    assert found[:, -S // 4 :, 0].min() == 255


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"", "cannot be decoded"),
        (b"not an image", "cannot be decoded"),
        (encoded(Image.fromarray(noise(0, 64, 64, 3)), "JPEG")[:400], "cannot be decoded"),
        (encoded(Image.fromarray(noise(0)))[:-30], "cannot be decoded"),
        (encoded(Image.new("RGB", (1, 1))), "below 4 pixels"),
        (encoded(Image.new("RGB", (300, 2))), "below 4 pixels"),
        (bomb(9000, 9000), "decompression bomb"),
        (bomb(60000, 60000), "decompression bomb"),
        ("no/such/file.png", "missing"),
        (None, "cannot be decoded"),
        (3.5, "cannot be decoded"),
        (np.zeros((S, S, 3)), "cannot be decoded"),
    ],
    ids=lambda value: "" if isinstance(value, bytes | np.ndarray) else str(value),
)
def test_what_is_no_usable_picture_is_counted(value: object, reason: str) -> None:
    image, counts = read(value)
    assert image is None
    assert [reason in name for name in counts] == [True]
    assert counts.first == dict.fromkeys(counts, "here")


def test_a_large_photograph_is_decoded_small() -> None:
    large = Image.new("RGB", (4000, 3000), (200, 100, 50))
    image, counts = read(encoded(large, "JPEG"))
    assert image is not None
    assert not counts
    assert np.abs(image.astype(int) - (200, 100, 50)).max() < 6


# --- sets


def folder_of(path: Path, count: int = 40) -> Path:
    for number in range(count):
        label = ("cats", "dogs")[number % 2]
        (path / label).mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise(number)).save(path / label / f"{number:03}.png")
    (path / "cats" / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    (path / "notes.txt").write_text("not an image")
    return path


def parquet_of(path: Path, count: int = 40, broken: int = 0) -> Path:
    images = [{"bytes": encoded(Image.fromarray(noise(n))), "path": f"{n}.png"} for n in range(count)]
    images += [{"bytes": b"junk", "path": None}] * broken
    pq.write_table(pa.table({"img": images, "label": [n % 3 for n in range(len(images))]}), path)
    return path


def config(source: object, **values: object) -> ImageDataConfig:
    return ImageDataConfig.load({"source": str(source), "size": S, "eval_fraction": 0.25, **values})


def test_a_folder_of_images_is_split_labelled_and_counted(tmp_path: Path) -> None:
    train, held_out = train_and_eval(config(folder_of(tmp_path / "pets")))
    assert len(train) + len(held_out) == 40
    assert 4 <= len(held_out) <= 18
    assert train.counts == {"images": 40, "image cannot be decoded": 1}
    assert set(train.labels) == {"cats", "dogs"}
    for images in (train, held_out):
        number = int(Path(images.place(0)).stem)
        assert np.array_equal(images[0], noise(number))
        assert images.labels[0] == Path(images.place(0)).parent.name
    assert not {image.tobytes() for image in train.pixels} & {image.tobytes() for image in held_out.pixels}


def test_copies_of_an_image_are_on_one_side(tmp_path: Path) -> None:
    for number in range(60):
        Image.fromarray(noise(number % 20)).save(tmp_path / f"{number}.png")
    train, held_out = train_and_eval(config(tmp_path))
    assert not {image.tobytes() for image in train.pixels} & {image.tobytes() for image in held_out.pixels}
    assert train.labels == [None] * len(train)  # one folder is no label


def test_parquet_gives_the_same_pixels_as_files(tmp_path: Path) -> None:
    cfg = config(parquet_of(tmp_path / "a.parquet", broken=2), column="img", label="label")
    train, held_out = train_and_eval(cfg)
    assert train.counts == {"images": 40, "image cannot be decoded": 2}
    number = int(train.place(0).rpartition(":")[2])
    assert np.array_equal(train[0], noise(number))
    assert train.labels[0] == str(number % 3)
    assert len(train) + len(held_out) == 40


def test_a_source_of_its_own_can_be_held_out(tmp_path: Path) -> None:
    cfg = config(parquet_of(tmp_path / "a.parquet"), column="img", eval_source=str(folder_of(tmp_path / "pets", 6)))
    train, held_out = train_and_eval(cfg)
    assert (len(train), len(held_out)) == (40, 6)


def test_a_limit_takes_the_first_usable_images(tmp_path: Path) -> None:
    train, held_out = train_and_eval(config(parquet_of(tmp_path / "a.parquet"), column="img", images=30))
    assert len(train) + len(held_out) == 30
    assert train.counts["images"] == 30


def test_decoding_happens_once_and_sets_travel_light(tmp_path: Path) -> None:
    cfg = config(folder_of(tmp_path / "pets"))
    first = ImageSet(cfg)
    pixels = np.array(first.pixels)
    assert len(pickle.dumps(first)) < 4000
    again = pickle.loads(pickle.dumps(first))
    for file in (tmp_path / "pets").rglob("*.png"):
        file.unlink()
    assert np.array_equal(again.pixels, pixels)  # the source is gone, the cache is not


def test_the_cache_key_follows_the_files(tmp_path: Path) -> None:
    cfg = config(folder_of(tmp_path / "pets"))
    before = json.dumps(source_key(cfg))
    assert json.dumps(source_key(cfg)) == before
    assert json.dumps(source_key(cfg.model_copy(update={"size": 32}))) != before
    assert json.dumps(source_key(cfg.model_copy(update={"probe_images": 50}))) == before  # no pixel depends on it
    (tmp_path / "pets" / "cats" / "000.png").unlink()
    assert json.dumps(source_key(cfg)) != before


def test_a_broken_cache_is_not_left_behind(tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"junk")
    with pytest.raises(UserError, match=r"no usable image: 1 x image cannot be decoded \(first: .*bad.png"):
        len(ImageSet(config(tmp_path)))
    Image.fromarray(noise(0)).save(tmp_path / "good.png")
    with pytest.raises(UserError, match=r"holds none of them out|nothing is left"):
        len(ImageSet(config(tmp_path)))


def test_sources_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="matches no file or folder"):
        image_files(str(tmp_path / "nothing" / "*.png"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"holds no \.jpg"):
        image_files(str(tmp_path / "empty"))
    with pytest.raises(
        UserError, match=r"no column 'image'; set data.column to one of: img, img.bytes, img.path, label"
    ):
        len(ImageSet(config(parquet_of(tmp_path / "a.parquet"))))
    assert image_files("owner/name") is None
    assert image_files("hub:name") is None


def test_the_scenes_world_is_a_source() -> None:
    cfg = ImageDataConfig.load({"images": 60, "size": 32, "eval_fraction": 0.2})
    train, held_out = train_and_eval(cfg)
    assert len(train) + len(held_out) == 60
    assert train[0].shape == (32, 32, 3)


# --- tasks and user inputs


def test_labels_become_a_task(tmp_path: Path) -> None:
    cfg = config(folder_of(tmp_path / "pets"))
    (task,) = image_tasks(cfg.model_copy(update={"probe_images": 20}))
    assert task.classes == ("cats", "dogs")
    assert (len(task.train), len(task.test)) == (20, min(1000, len(ImageSet(cfg, "eval"))))
    label = task.classes[task.test_labels[0]]
    assert label == ImageSet(cfg, "eval").labels[0]
    assert image_tasks(config(parquet_of(tmp_path / "a.parquet"), column="img")) == []


def test_inputs_of_any_kind_load_alike(tmp_path: Path) -> None:
    array = noise(3)
    Image.fromarray(array).save(tmp_path / "a.png")
    inputs = [array, str(tmp_path / "a.png"), tmp_path / "a.png", (tmp_path / "a.png").read_bytes()]
    loaded = load_images([*inputs, Image.fromarray(array)], S)
    assert (loaded == array).all()
    with pytest.raises(UserError, match="number 1: image cannot be decoded"):
        load_images([array, b"junk"], S)
    with pytest.raises(UserError, match=r"nowhere.png: image file is missing"):
        load_images(["nowhere.png"], S)


def test_raw_pixels_are_means_of_squares() -> None:
    assert np.allclose(raw_pixels([noise(0)], S), noise(0).reshape(1, -1) / 255)
    large = noise(1, 48, 48, 3)
    means = raw_pixels([large], 48).reshape(24, 24, 3)
    assert np.allclose(means[3, 5], large[6:8, 10:12].mean((0, 1)) / 255)
