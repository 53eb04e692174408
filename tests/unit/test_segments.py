"""`masked_text`: the tables of a batch of segments, each compared with loops over its tokens; and how it travels."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from lightning_fabric.plugins.precision import MixedPrecision
from lightning_fabric.utilities.apply_func import move_data_to_device
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor
from torch.utils.data import DataLoader

from openjepa.core.progress import Progress
from openjepa.core.seeding import generator_for
from openjepa.core.sizes import round_up
from openjepa.data.text.masked import MaskedText, Segments, Tokens, masked_text
from openjepa.models.transformer import gather_positions
from tests.batches import assert_same, tensors_of, values_of

VOCAB = 50


@dataclass(frozen=True)
class Layout:
    """Rows of tokens in plain lists."""

    segment: list[list[int]]  # of each token of each row, -1 = of none
    is_hidden: list[bool]  # of each segment
    row_document: list[int]  # of each row
    multiples: tuple[int, int]

    @property
    def tokens(self) -> list[tuple[int, int, int]]:
        """Row, position in the row and segment of every token."""
        return [(r, t, s) for r, row in enumerate(self.segment) for t, s in enumerate(row)]

    @property
    def width(self) -> int:
        return max(map(len, self.segment))

    def hides(self, segment: int) -> bool:
        return segment >= 0 and self.is_hidden[segment]

    def row(self, segment: int) -> int:
        return next(r for r, _, s in self.tokens if s == segment)

    @property
    def document(self) -> list[int]:
        """Of each segment."""
        return [self.row_document[self.row(segment)] for segment in range(len(self.is_hidden))]

    @property
    def position(self) -> list[int]:
        """Of each segment in its document."""
        return [self.document[:n].count(document) for n, document in enumerate(self.document)]

    @property
    def batch(self) -> MaskedText:
        lengths = [len(row) for row in self.segment]
        valid = torch.arange(self.width) < torch.tensor(lengths)[:, None]  # [B, T]
        return masked_text(
            keys=torch.arange(len(lengths)),
            ids=torch.randint(VOCAB, valid.shape, generator=generator_for(0, "ids")).masked_fill(~valid, 0),
            valid=valid,
            segment=torch.tensor([row + [-1] * (self.width - len(row)) for row in self.segment]),
            is_hidden=torch.tensor(self.is_hidden, dtype=torch.bool),
            document=torch.tensor(self.document, dtype=torch.int64),
            position=torch.tensor(self.position, dtype=torch.int64),
            vocab=VOCAB,
            multiples=self.multiples,
        )


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    number, rows = 0, []
    for _ in range(draw(st.integers(1, 4))):
        row: list[int] = []
        pieces = st.tuples(st.booleans(), st.integers(1, 4))
        for in_segment, length in draw(st.lists(pieces, min_size=1, max_size=6)):
            row += length * [number if in_segment else -1]
            number += in_segment
        rows.append(row)
    begins = [0, *draw(st.lists(st.integers(0, 1), min_size=len(rows) - 1, max_size=len(rows) - 1))]
    hidden = draw(st.lists(st.booleans(), min_size=number, max_size=number))
    multiples = st.sampled_from([1, 2, 3, 8])
    return Layout(rows, hidden, [*accumulate(begins)], (draw(multiples), draw(multiples)))


def real(part: Tensor, valid: Tensor) -> list[list[int]]:
    """The entries of each row [B, K] that are no padding."""
    return [row[keep].tolist() for row, keep in zip(part, valid, strict=True)]


def assert_padded_at_the_end(valid: Tensor, multiple: int, at_most: int | None = None) -> None:
    """No wider than needed."""
    counts = valid.sum(1)
    width = round_up(int(counts.max()) if len(counts) else 0, multiple)
    assert valid.shape[1] == (width if at_most is None else min(width, at_most))
    assert torch.equal(valid, torch.arange(valid.shape[1]) < counts[:, None])


@settings(deadline=None)
@given(layouts())
def test_every_token_is_visible_or_hidden_and_of_its_segment(layout: Layout) -> None:
    batch = layout.batch
    assert batch.tokens == len(layout.tokens)
    hidden = [[layout.hides(segment) for segment in row] for row in layout.segment]
    assert real(batch.hidden, batch.valid) == hidden
    assert not (batch.hidden & ~batch.valid).any()
    found = []
    for part, is_hidden in ((batch.visible_tokens, False), (batch.hidden_tokens, True)):
        wanted = [(r, t, s) for r, t, s in layout.tokens if layout.hides(s) == is_hidden]
        rows = part.valid.nonzero()[:, 0].tolist()
        listed = [*zip(rows, part.at[part.valid].tolist(), part.segment[part.valid].tolist(), strict=True)]
        assert listed == wanted
        assert (part.segment[~part.valid] == -1).all()
        assert_padded_at_the_end(part.valid, layout.multiples[0], at_most=layout.width)
        assert ((part.at >= 0) & (part.at < layout.width)).all()  # padding can be gathered with, too
        assert gather_positions(batch.ids, part.at)[part.valid].tolist() == [int(batch.ids[r, t]) for r, t, _ in wanted]
        found += listed
    assert sorted(found) == layout.tokens
    everything = batch.all_tokens
    assert torch.equal(everything.valid, batch.valid)
    assert torch.equal(everything.segment, batch.segment)
    assert torch.equal(gather_positions(batch.ids, everything.at), batch.ids)


@settings(deadline=None)
@given(layouts())
def test_tables_of_segments_say_where_they_begin_and_which_are_hidden(layout: Layout) -> None:
    batch = layout.batch
    count = len(layout.is_hidden)
    first = [next((r, t) for r, t, s in layout.tokens if s == segment) for segment in range(count)]
    assert [*zip(batch.row.tolist(), batch.start.tolist(), strict=True)] == first
    assert batch.hidden_segments.tolist() == [segment for segment in range(count) if layout.is_hidden[segment]]
    assert {len(table) for table in (batch.row, batch.start, batch.document, batch.position)} == {count}


@settings(deadline=None)
@given(layouts())
def test_segments_are_listed_by_document_in_order(layout: Layout) -> None:
    batch = layout.batch
    documents = max(layout.document, default=-1) + 1
    for part, is_hidden in ((batch.visible_by_document, False), (batch.hidden_by_document, True)):
        wanted = [
            [n for n, own in enumerate(layout.document) if own == document and layout.is_hidden[n] == is_hidden]
            for document in range(documents)
        ]
        assert real(part.number, part.valid) == wanted
        assert_padded_at_the_end(part.valid, layout.multiples[1])
        assert ((part.number >= 0) & (part.number < max(1, len(layout.is_hidden)))).all()
        positions = real(batch.position[part.number], part.valid) if documents else []
        assert positions == [[layout.position[n] for n in row] for row in wanted]
    assert torch.equal(batch.hidden_by_document.number[batch.hidden_by_document.valid], batch.hidden_segments)


@settings(deadline=None)
@given(layouts())
def test_segments_are_read_as_texts_that_begin_at_position_0(layout: Layout) -> None:
    batch = layout.batch
    for part in (batch.visible_tokens, batch.hidden_tokens, batch.all_tokens):
        segment, position = part.segment, part.positions
        assert torch.equal(segment, part.segment)
        for number in segment[segment >= 0].unique().tolist():
            length = layout.segment[layout.row(number)].count(number)
            assert position[segment == number].tolist() == list(range(length))


@settings(deadline=None)
@given(layouts())
def test_the_nearest_visible_segment_and_token_are_found_by_search(layout: Layout) -> None:
    assume(layout.is_hidden)
    batch = layout.batch
    for hidden, found in zip(batch.hidden_segments.tolist(), batch.nearest_visible_segments().tolist(), strict=True):
        row = layout.row(hidden)
        visible = [n for n, hides in enumerate(layout.is_hidden) if layout.row(n) == row and not hides]
        if visible:
            assert found == min(visible, key=lambda n, hidden=hidden: (abs(n - hidden), n))
    assume(batch.visible_tokens.valid.any(1).all())
    nearest = batch.nearest_visible_tokens()  # [B, H]
    seen = real(batch.visible_tokens.at, batch.visible_tokens.valid)
    hidden = real(batch.hidden_tokens.at, batch.hidden_tokens.valid)
    for row, own in enumerate(hidden):
        for at, found in zip(own, nearest[row].tolist()[: len(own)], strict=True):
            assert found == min(seen[row], key=lambda t, at=at: (abs(t - at), t))


@settings(deadline=None)
@given(layouts(), st.sets(st.integers(0, VOCAB - 1), max_size=25))
def test_texts_of_hidden_segments_are_their_tokens_but_the_special_ones(layout: Layout, special: set[int]) -> None:
    batch = layout.batch
    ids, valid = batch.hidden_texts(sorted(special))
    wanted = [
        [int(batch.ids[r, t]) for r, t, s in layout.tokens if s == segment and int(batch.ids[r, t]) not in special]
        for segment in batch.hidden_segments.tolist()
    ]
    assert real(ids, valid) == wanted
    assert_padded_at_the_end(valid, 1)


@settings(deadline=None)
@given(layouts())
def test_other_hidden_content_changes_ids_of_hidden_segments_alone(layout: Layout) -> None:
    batch = layout.batch
    others = [batch.with_other_hidden(generator_for(0, "other", n)) for n in range(30)]
    for other in others:
        assert torch.equal(other.ids[~batch.hidden], batch.ids[~batch.hidden])
        assert_same(replace(other, ids=batch.ids), batch)
    drawn = torch.stack([other.ids[batch.hidden] for other in others])  # [30, K]
    assert ((drawn >= 0) & (drawn < batch.vocab)).all()
    assert (drawn != drawn[0]).any(0).all()


# --- how a batch travels ---------------------------------------------------------------------------------------------

LAYOUT = Layout(
    segment=[[-1, 0, 0, 1, 1, 1, 2], [-1, 3, 4, 4], [5, 5, -1, 6, 7]],
    is_hidden=[True, False, False, True, False, False, True, False],
    row_document=[0, 0, 1],
    multiples=(4, 2),
)
PARTS = {
    "visible_tokens": Tokens,
    "hidden_tokens": Tokens,
    "visible_by_document": Segments,
    "hidden_by_document": Segments,
}


@pytest.fixture
def batch() -> MaskedText:
    return replace(LAYOUT.batch, draw=3, progress=Progress(2, 9))


def test_all_tensors_are_known_by_name(batch: MaskedText) -> None:
    """So that the tests below look at every one, those of the parts included."""
    names = ["keys", "ids", "valid", "hidden", "segment", "hidden_segments", "row", "start", "document", "position"]
    names += [
        f"{tokens}.{name}" for tokens in ("visible_tokens", "hidden_tokens") for name in ("at", "valid", "segment")
    ]
    names += [
        f"{part}.{name}" for part in ("visible_by_document", "hidden_by_document") for name in ("number", "valid")
    ]
    assert sorted(tensors_of(batch)) == sorted(names)
    assert values_of(batch) == {"draw": 3, "progress": Progress(2, 9), "real_tokens": 16, "vocab": VOCAB}


@pytest.mark.parametrize("move", [lambda batch: batch.to("meta"), lambda batch: move_data_to_device(batch, "meta")])
def test_every_tensor_moves_to_the_device(batch: MaskedText, move) -> None:
    moved = move(batch)
    assert isinstance(moved, MaskedText)
    assert all(isinstance(getattr(moved, name), kind) for name, kind in PARTS.items())
    before, after = tensors_of(batch), tensors_of(moved)
    assert {name: (x.shape, x.dtype) for name, x in after.items()} == {n: (x.shape, x.dtype) for n, x in before.items()}
    assert {x.device.type for x in after.values()} == {"meta"}
    assert {x.device.type for x in before.values()} == {"cpu"}
    assert values_of(moved) == values_of(batch)


def test_moving_to_where_it_is_changes_nothing(batch: MaskedText) -> None:
    assert_same(batch.to("cpu"), batch)


def test_another_progress_leaves_the_rest_as_it_is(batch: MaskedText) -> None:
    later = replace(batch, progress=Progress(8, 9))
    assert later.progress == Progress(8, 9)
    assert all(getattr(later, name) is getattr(batch, name) for name in PARTS)
    assert_same(replace(later, progress=batch.progress), batch)


def test_fabric_takes_it_apart_and_puts_it_together(batch: MaskedText) -> None:
    """As Fabric does with what a module is called with, to convert what is floating-point."""
    kept = LAYOUT.batch
    changed = apply_to_collection(batch, Tensor, lambda x: x + 1 if x.dtype == torch.int64 else ~x)
    assert isinstance(changed, MaskedText)
    for name, value in tensors_of(changed).items():
        before = tensors_of(batch)[name]
        assert torch.equal(value, before + 1 if before.dtype == torch.int64 else ~before), name
    assert values_of(changed) == values_of(batch)
    assert_same(replace(batch, draw=0, progress=kept.progress), kept)


MASKS = ["valid", "hidden", *(f"{part}.valid" for part in PARTS)]


def test_it_knows_where_the_masks_of_its_parts_are_true(batch: MaskedText) -> None:
    """Also when it has been moved, or taken apart by Fabric in mixed precision: `pick` finds a mask by identity."""
    known = batch.indexed()
    converted = MixedPrecision("bf16-mixed", "cpu").convert_input(known)
    for one in (known, converted, batch.to("meta"), known.to("meta")):
        masks = [tensors_of(one)[name] for name in MASKS]
        assert all(any(selection.mask is mask for selection in one.selections) for mask in masks)
    for mask in (tensors_of(known)[name] for name in MASKS):
        x = torch.randn(*mask.shape, 3, generator=generator_for(0, "picked"))
        assert torch.equal(known.pick(x, mask), x[mask])
    assert_same(known, batch)


def test_it_is_pickled_whole(batch: MaskedText) -> None:
    assert_same(pickle.loads(pickle.dumps(batch)), batch)


def collated(rows: Sequence[int]) -> MaskedText:
    return replace(LAYOUT.batch, draw=rows[0])


def test_data_workers_send_it_whole() -> None:
    for number, sent in enumerate(DataLoader(range(3), collate_fn=collated, num_workers=1)):  # ty: ignore
        assert_same(sent, collated([number]))
