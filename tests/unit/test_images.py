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
from openjepa.data.files.readers import Counts
from openjepa.data.images.dataset import ImageSet, load_images, raw_pixels, source_key, train_and_eval
from openjepa.data.images.decode import AVIF, decode, quiet
from openjepa.data.images.sources import ImageDataConfig, image_files
from openjepa.tasks.images import image_tasks

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


# --- more than 8 bits


def grey(values: np.ndarray, format: str = "PNG", **options: object) -> bytes:
    """A file of 16 bits a sample that holds these values [S, S]."""
    return encoded(Image.fromarray(values.astype(np.uint16)), format, **options)


def ramp(most: int) -> np.ndarray:
    """[S, S] values from 0 to `most`."""
    return np.linspace(0, most, S * S).round().reshape(S, S)


def with_sbit(png: bytes, bits: int) -> bytes:
    """The PNG with an sBIT chunk behind its header."""
    head, name = 8 + 25, b"sBIT"
    chunk = struct.pack(">I", 1) + name + bytes([bits]) + struct.pack(">I", zlib.crc32(name + bytes([bits])))
    return png[:head] + chunk + png[head:]


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
@pytest.mark.parametrize("most", [255, 1023, 4095, 16383, 65535])
def test_a_grey_image_is_scaled_by_the_range_of_its_bits(most: int, format: str) -> None:
    """Black stays black, white becomes white, and what lies between stays in proportion, whatever the depth is."""
    image, counts = read(grey(ramp(most), format))
    assert image is not None
    assert np.abs(image[..., 0] - 255 * ramp(most) / most).max() <= 0.5001
    assert (image[..., 0] == image[..., 2]).all()
    assert list(counts) == ["mended: more than 8 bits"]


def test_a_range_is_that_of_the_bits_not_of_the_brightest_pixel() -> None:
    """An image of 12 bits that is not quite white stays so: only the number of bits is taken from the data."""
    image, _ = read(grey(ramp(3000)))
    assert image is not None
    assert image.max() == round(255 * 3000 / 4095)


@pytest.mark.parametrize(
    ("file", "white"),
    [
        (with_sbit(grey(ramp(900)), 12), 4095),
        (with_sbit(grey(ramp(900)), 16), 1023),  # 16 of 16 is what is stored: it says nothing
        (with_sbit(grey(ramp(60000)), 12), 65535),  # as the format wants it: spread over all 16 bits
        (grey(ramp(900)), 1023),
        (grey(ramp(900), "TIFF", tiffinfo={281: 4095}), 4095),
        (grey(ramp(900), "TIFF"), 1023),
    ],
)
def test_what_a_file_says_of_its_bits_counts(file: bytes, white: int) -> None:
    image, _ = read(file)
    assert image is not None
    most = 60000 if white == 65535 else 900
    assert image.max() == round(255 * most / white)


def test_a_tiff_of_12_bits_a_sample_is_read_as_such() -> None:
    """Values packed into 12 bits, two in three bytes; none is above 900."""
    values = ramp(900).astype(int).reshape(-1, 2)
    packed = bytes(byte for a, b in values for byte in (a >> 4, (a & 15) << 4 | b >> 8, b & 255))
    tags = [(256, 3, S), (257, 3, S), (258, 3, 12), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1), (278, 3, S)]
    tags.append((279, 4, len(packed)))
    fields = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    directory = struct.pack("<H", len(tags)) + fields + struct.pack("<I", 0)
    image, counts = read(b"II*\0" + struct.pack("<I", 8 + len(packed)) + packed + directory)
    assert image is not None
    assert np.abs(image[..., 0] - 255 * ramp(900) / 4095).max() <= 0.5001
    assert list(counts) == ["mended: more than 8 bits"]


@pytest.mark.parametrize(
    ("values", "expected", "mended"),
    [
        (ramp(1000) / 1000, ramp(255), []),
        (ramp(4095), ramp(255), []),
        (np.where(ramp(255) < 128, np.nan, 1.0), np.where(ramp(255) < 128, 0, 255), ["set to 0"]),
        (ramp(255) - 100, (ramp(255) - 100).clip(0), ["below 0"]),
        (np.full((S, S), 1e30), np.full((S, S), 255), []),
    ],
)
def test_floats_are_shares_of_white_or_values_of_so_many_bits(
    values: np.ndarray, expected: np.ndarray, mended: list[str]
) -> None:
    image, counts = read(Image.fromarray(values.astype(np.float32)))
    assert image is not None
    tolerance = 60 if values.max() > 1e20 else 1.01
    assert np.abs(image[..., 0] - expected).max() <= tolerance
    assert "mended: more than 8 bits" in counts
    assert len(counts) == 1 + len(mended)
    assert all(any(part in reason for reason in counts) for part in mended)


def png_of_16_bit_colours(values: np.ndarray) -> bytes:
    """[S, S, 3] uint16 as a PNG."""
    lines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", S, S, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


def test_colours_of_16_bits_are_read_and_those_that_would_be_black_are_refused() -> None:
    colours = noise(5).astype(np.uint16) * 257
    image, counts = read(png_of_16_bit_colours(colours))
    assert image is not None
    assert np.array_equal(image, noise(5))
    assert list(counts) == ["mended: more than 8 bits"]
    image, counts = read(png_of_16_bit_colours(colours >> 4))
    assert image is None
    assert [reason.startswith("colours of 16 bits, of which 12 or fewer are used") for reason in counts] == [True]


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
    assert train.counts == {"images": 40, "image cannot be decoded": 1, "left out: .txt": 1}
    assert set(train.labels) == {"cats", "dogs"}
    for images in (train, held_out):
        number = int(Path(images.origin(0)).stem)
        assert np.array_equal(images[0], noise(number))
        assert images.labels[0] == Path(images.origin(0)).parent.name
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
    number = int(train.origin(0).rpartition(":")[2])
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


def test_the_size_of_the_world_is_no_limit_of_other_sources(tmp_path: Path) -> None:
    file = config(parquet_of(tmp_path / "a.parquet"), column="img", world_images=30)
    assert sum(map(len, train_and_eval(file))) == 40
    world = ImageDataConfig(size=24, world_images=30, eval_fraction=0.2)
    assert sum(map(len, train_and_eval(world))) == 30
    assert sum(map(len, train_and_eval(world.model_copy(update={"images": 35})))) == 35


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
    with pytest.raises(UserError, match=r"no column 'image'; set data.column to one of: img, img.bytes,"):
        len(ImageSet(config(parquet_of(tmp_path / "a.parquet"))))
    assert image_files("owner/name") is None
    assert image_files("hub:name") is None


def test_the_scenes_world_is_a_source() -> None:
    cfg = ImageDataConfig.load({"images": 60, "size": 32, "eval_fraction": 0.2})
    train, held_out = train_and_eval(cfg)
    assert len(train) + len(held_out) == 60
    assert train[0].shape == (32, 32, 3)


def test_every_usual_extension_is_read_and_the_others_are_counted(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    kinds = {"jpg": "JPEG", "jpeg": "JPEG", "JPE": "JPEG", "jfif": "JPEG", "png": "PNG", "gif": "GIF", "webp": "WEBP",
             "bmp": "BMP", "tif": "TIFF", "TIFF": "TIFF", "ppm": "PPM"}  # fmt: skip
    kinds |= {"avif": "AVIF"} if AVIF else {}
    for number, (suffix, format) in enumerate(kinds.items()):
        Image.fromarray(noise(number)).save(tmp_path / "photos" / f"{number:02}.{suffix}", format)
    for name in ("a.mp4", "b.mp4", "c.HEIC", "README"):
        (tmp_path / "photos" / name).write_bytes(b"something")
    (tmp_path / "photos" / ".hidden").write_bytes(b"something")
    found = ImageSet(config(tmp_path / "photos"))
    left_out = {"left out: .mp4": 2, "left out: .heic": 1, "left out: file without an extension": 1}
    assert found.counts == {"images": len(kinds), **left_out}


def nested(path: Path, *files: str) -> Path:
    for number, file in enumerate(files):
        (path / file).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise(number)).save(path / file)
    return path


@pytest.mark.parametrize(
    ("level", "labels"),
    [(1, {"in", "out"}), (2, {"cats", "dogs"}), (-1, {"cats", "dogs"}), (-2, {"in", "out"})],
)
def test_the_folder_that_is_the_label_can_be_chosen(level: int, labels: set[str], tmp_path: Path) -> None:
    files = [f"{animal}/{origin}/{n}.png" for animal in ("cats", "dogs") for origin in ("in", "out") for n in range(10)]
    source = nested(tmp_path / "pets", *files)
    for pattern in (source, source / "*" / "*" / "*.png", source / "**" / "*.png"):
        sets = train_and_eval(config(pattern, label_level=level))
        assert {label for images in sets for label in images.labels} == labels
        at = {1: -2, 2: -3, -1: -3, -2: -2}[level]
        assert all(Path(origin).parts[at] == label for images in sets
                   for origin, label in zip(images.origins, images.labels, strict=True))  # fmt: skip


def test_folders_of_different_depths_have_the_levels_that_all_have(tmp_path: Path) -> None:
    files = [f"{animal}/{where}{n}.png" for animal in ("cats", "dogs") for where in ("", "in/") for n in range(10)]
    source = nested(tmp_path / "pets", *files)
    labels = [label for images in train_and_eval(config(source, label_level=-1)) for label in images.labels]
    assert {label: labels.count(label) for label in set(labels)} == {"cats": 20, "dogs": 20}
    for level, way in ((2, "above the images"), (-2, "below data.source")):
        with pytest.raises(
            UserError, match=rf"label_level={level}: 20 of 40 images .* no folder 2 levels {way}.*cats/0"
        ):
            len(ImageSet(config(source, label_level=level)))
    with pytest.raises(UserError, match="label_level=0 names no folder"):
        len(ImageSet(config(source, label_level=0)))


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
