"""Files of vectors: what is written, what a killed process leaves, and what smaller vectors cost."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from filelock import FileLock

from openjepa.core.errors import UserError
from openjepa.encoding import files
from openjepa.encoding.compact import Compaction, neighbours_kept
from openjepa.encoding.files import CHUNK, TextFiles, embed_file
from openjepa.encoding.workers import Encoded, Pass, one_process, several_processes
from openjepa.evals.features import unit_rows

DIM = 16
ROWS = 2 * CHUNK + 300


def encode(texts: Sequence[str]) -> Encoded:
    """A vector a text that depends on its characters alone."""
    rows = [np.random.default_rng(list(text.encode())).standard_normal(DIM) for text in texts]
    return Encoded(np.array(rows, dtype=np.float32), {"texts": len(texts)})


def make_encode(number: int) -> Any:
    return encode


class Killed(BaseException):
    """Stands for a kill: nothing catches it, and no file is closed properly by its handler."""


def encoder_that_is_killed(after_chunks: int) -> Any:
    done = 0

    def one(texts: Sequence[str]) -> Encoded:
        nonlocal done
        if done == after_chunks:
            raise Killed
        done += 1
        return encode(texts)

    return one


@pytest.fixture
def source(tmp_path: Path) -> TextFiles:
    """ROWS rows; every thousandth has no text."""
    rows = [{"sku": f"a-{n}", "text": None if n % 1000 == 7 else f"text number {n}"} for n in range(ROWS)]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return TextFiles(str(tmp_path / "in.jsonl"), id_column="sku")


def write(source: TextFiles, out: Path, encoder: Any = encode, settings: Any = (), **compact: Any) -> dict[str, Any]:
    return embed_file(partial(one_process, encoder), source, out, Compaction(DIM, **compact), dict(settings))


def expected() -> np.ndarray:
    vectors = encode([f"text number {n}" for n in range(ROWS)]).vectors
    vectors[7::1000] = 0
    return vectors


def names(out: Path) -> list[str]:
    return [json.loads(line) for line in out.with_suffix(".ids.jsonl").read_text().splitlines()]


def test_npy_parquet_and_faiss_hold_the_same_rows(source: TextFiles, tmp_path: Path) -> None:
    results = [write(source, tmp_path / f"v{suffix}") for suffix in (".npy", ".parquet", ".faiss")]
    found = np.load(tmp_path / "v.npy")
    assert found.dtype == np.float32
    assert np.array_equal(found, expected())
    table = pq.read_table(tmp_path / "v.parquet")
    assert table.schema.field("vector").type == pa.list_(pa.float32(), DIM)
    assert np.array_equal(table["vector"].combine_chunks().flatten().to_numpy().reshape(-1, DIM), found)
    index = faiss.read_index(str(tmp_path / "v.faiss"))
    assert np.allclose(index.reconstruct_n(0, ROWS), unit_rows(found), atol=1e-6)
    skus = [f"a-{n}" for n in range(ROWS)]
    assert names(tmp_path / "v.npy") == names(tmp_path / "v.faiss") == table["id"].to_pylist() == skus
    for result in results:
        assert (result["rows"], result["without_text"], result["first_without_text"]) == (ROWS, 5, "a-7")
    made = {"in.jsonl", "v.npy", "v.ids.jsonl", "v.parquet", "v.faiss"}
    assert {file.name for file in tmp_path.iterdir()} == made  # nothing else stays


def test_a_chunk_of_long_texts_has_fewer_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "CHUNK_CHARS", 100)
    (tmp_path / "in.txt").write_text("".join(f"{number} {'x' * 58}\n" for number in range(5)))
    together: list[int] = []

    def counted(texts: Sequence[str]) -> Encoded:
        together.append(len(texts))
        return encode(texts)

    assert write(TextFiles(str(tmp_path / "in.txt")), tmp_path / "v.npy", counted)["rows"] == 5
    assert together == [2, 2, 1]


@pytest.mark.parametrize("suffix", [".npy", ".parquet"])
@pytest.mark.parametrize("half_written", [False, True])
def test_what_was_killed_goes_on_and_ends_equal(
    source: TextFiles, tmp_path: Path, suffix: str, half_written: bool
) -> None:
    write(source, tmp_path / f"whole{suffix}")
    out = tmp_path / f"v{suffix}"
    out.write_bytes(b"older result")
    for chunks in (1, 1):
        with pytest.raises(Killed):
            write(source, out, encoder_that_is_killed(chunks))
        if half_written:  # as if the kill came between a block and the note of it
            for name in ("vectors.npy", "ids.jsonl"):
                with (tmp_path / f".v{suffix}.partial" / name).open("ab") as file:
                    file.write(b"half a block")
        assert out.read_bytes() == b"older result"
    result = write(source, out)
    assert result["resumed_rows"] == 2 * CHUNK
    assert out.read_bytes() == (tmp_path / f"whole{suffix}").read_bytes()
    assert (result["without_text"], result["reading"]) == (5, {"texts": ROWS - 5})


def test_rows_of_other_settings_or_texts_are_not_gone_on_with(source: TextFiles, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        write(source, tmp_path / "v.npy", encoder_that_is_killed(1), settings={"run": "a"})
    with pytest.raises(UserError, match=r"run 'a', now 'b'"):
        write(source, tmp_path / "v.npy", settings={"run": "b"})
    with pytest.raises(UserError, match="dims 16, now 8"):
        write(source, tmp_path / "v.npy", settings={"run": "a"}, dims=8)
    file = Path(source.files)
    file.write_text(file.read_text().replace("text number 3", "another text", 1))
    with pytest.raises(UserError, match=r"no longer what 2048 rows were made of; remove .*v\.npy\.partial"):
        write(source, tmp_path / "v.npy", settings={"run": "a"})


def test_two_at_once_do_not_mix(source: TextFiles, tmp_path: Path) -> None:
    (tmp_path / ".v.npy.partial").mkdir()
    with FileLock(tmp_path / ".v.npy.partial" / "lock"), pytest.raises(UserError, match="another process is writing"):
        write(source, tmp_path / "v.npy")


def test_an_error_before_the_first_block_leaves_what_was_there(source: TextFiles, tmp_path: Path) -> None:
    (tmp_path / "v.npy").write_bytes(b"older result")
    with pytest.raises(Killed):
        write(source, tmp_path / "v.npy", encoder_that_is_killed(0))
    assert (tmp_path / "v.npy").read_bytes() == b"older result"
    assert not (tmp_path / ".v.npy.partial").exists()
    (tmp_path / "empty.txt").write_text("\n\n")
    with pytest.raises(UserError, match="holds no text"):
        write(TextFiles(str(tmp_path / "empty.txt")), tmp_path / "v.npy")
    assert not (tmp_path / ".v.npy.partial").exists()


@pytest.mark.parametrize("name", ["v.csv", "nowhere/v.npy"])
def test_impossible_outputs_are_named(source: TextFiles, tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=name.rpartition("/")[0] or name):
        write(source, tmp_path / name)


def test_several_processes_give_the_same_file(source: TextFiles, tmp_path: Path) -> None:
    one = write(source, tmp_path / "one.npy")
    encoding = partial(several_processes, 2, make_encode)
    two = embed_file(encoding, source, tmp_path / "two.npy", Compaction(DIM), {})
    assert (tmp_path / "one.npy").read_bytes() == (tmp_path / "two.npy").read_bytes()
    assert names(tmp_path / "one.npy") == names(tmp_path / "two.npy")
    assert one["reading"] == two["reading"]


def test_no_more_chunks_are_read_than_processes_can_use() -> None:
    read = 0

    def chunks() -> Iterator[Any]:
        nonlocal read
        for number in range(50):
            read += 1
            yield ([f"text {number}"], number)

    from openjepa.encoding.workers import AHEAD, Chunk

    def run(embed: Pass) -> None:
        for done, (chunk, encoded) in enumerate(embed(Chunk(*one) for one in chunks()), start=1):
            assert chunk.about == done - 1  # in order
            assert np.array_equal(encoded.vectors, encode(chunk.texts).vectors)
            assert read - done < AHEAD * 2

    with several_processes(2, make_encode) as embed:
        run(embed)
    assert read == 50


def test_int8_codes_are_the_vectors_and_binary_ones_their_signs(source: TextFiles, tmp_path: Path) -> None:
    result = write(source, tmp_path / "v.npy", quantization="int8")
    codes, full = np.load(tmp_path / "v.npy"), expected()
    assert codes.dtype == np.int8
    unclipped = np.abs(full) <= 127 * result["scale"]
    assert np.abs(codes * result["scale"] - full)[unclipped].max() <= 0.5001 * result["scale"]
    assert result["clipped"] == (np.rint(np.abs(full) / result["scale"]) > 127).sum()
    assert result["neighbours_kept"] > 0.9
    write(source, tmp_path / "b.parquet", quantization="binary")
    bits = pq.read_table(tmp_path / "b.parquet")["vector"].combine_chunks().flatten().to_numpy().reshape(-1, DIM // 8)
    assert np.array_equal(np.unpackbits(bits, axis=1).astype(bool), full > 0)
    write(source, tmp_path / "b.faiss", quantization="binary")
    index = faiss.read_index_binary(str(tmp_path / "b.faiss"))
    distance, nearest = index.search(bits[:1], 1)
    assert (distance[0, 0], nearest[0, 0]) == (0, 0)
    with pytest.raises(UserError, match="int8 vectors are written as"):
        write(source, tmp_path / "c.faiss", quantization="int8")


def test_dims_are_the_first_and_unit_vectors_stay_unit(source: TextFiles, tmp_path: Path) -> None:
    write(source, tmp_path / "v.npy", dims=4)
    assert np.array_equal(np.load(tmp_path / "v.npy"), expected()[:, :4])
    vectors = unit_rows(expected()).astype(np.float32)
    cut = Compaction(DIM, 4, unit_length=True).cut(vectors)
    assert np.allclose(np.linalg.norm(cut[1:7], axis=1), 1, atol=1e-6)
    assert np.array_equal(cut[7], np.zeros(4))  # no text
    for dims in (0, 17):
        with pytest.raises(UserError, match=f"--dims {dims}: this run's vectors have 16 dimensions"):
            Compaction(DIM, dims)
    with pytest.raises(UserError, match="add --dims 8"):
        Compaction(DIM, 12, "binary")


def test_neighbours_kept_is_one_for_the_same_and_chance_for_others() -> None:
    random = np.random.default_rng(0)
    vectors = random.standard_normal((200, 8))
    assert neighbours_kept(vectors, 3 * vectors) == 1
    chance = neighbours_kept(vectors, random.standard_normal((200, 8)))
    assert chance == pytest.approx(10 / 199, abs=0.02)
    assert neighbours_kept(vectors[:49], vectors[:49]) is None
