"""Prediction of an image's hidden patches, patch by patch, and how much a caption changes it.

The image is masked as in training and read in a batch with held-out images: targets may be relative to their batch
(`objectives.targets.standardize`), and the others' targets are what a cosine is compared with. A caption is compared
with those of other held-out images, with the same patches hidden: only the text differs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from openjepa.api import Run
from openjepa.core.errors import UserError
from openjepa.core.evaluating import evaluating
from openjepa.core.experiment import Sample
from openjepa.core.method import Latents, latents_of
from openjepa.core.picture import Patches
from openjepa.core.seeding import generator_for
from openjepa.data.captions.batches import CaptionCollator
from openjepa.data.captions.dataset import Captioned, CaptionedImages
from openjepa.data.images.augment import AugmentConfig
from openjepa.data.images.batches import MaskedImageCollator, MaskedImages, images_at_once
from openjepa.data.images.dataset import ImageSet
from openjepa.data.images.sources import WORLD
from openjepa.data.pictures import image_pictures
from openjepa.data.tokenizers.unknown_tokens import UnknownTokens
from openjepa.demo.answers import MOST_CHARS, Chance, chance_of, same_words
from openjepa.demo.held_out_images import Chosen, HeldOutImages, ImageMatch, Refused, require_chosen
from openjepa.tasks.captions import image_skills

OTHER_CAPTIONS = 8  # of other images, which a caption is compared with
# kinds of captions
YOURS = "yours"
OWN = "own"
OTHER = "other"
NONE = "none"


@dataclass(frozen=True)
class PatchPrediction:
    """How well the hidden patches of one image are predicted."""

    cosine: np.ndarray  # [N] of each patch's predicted latent with its target, NaN where it is not hidden
    chance: Chance  # of the same predictions with hidden patches of other images
    same_position: float  # mean of those at the same position, NaN if there are none
    skill: float  # of this image
    skill_others: float  # mean of the other images of the batch

    @property
    def mean(self) -> float:
        """Mean cosine of the hidden patches."""
        return float(np.nanmean(self.cosine))


@dataclass(frozen=True)
class TriedCaption:
    """A prediction with one caption."""

    caption: str
    kind: str  # YOURS, OWN, OTHER or NONE
    is_right: bool  # one of the image's own captions, where these are known
    prediction: PatchPrediction


@dataclass(frozen=True)
class PatchAnswer:
    """The prediction of an image's hidden patches."""

    picture: Patches  # as the networks read it
    hidden: np.ndarray  # [N] bool
    shown: np.ndarray  # [N] bool, what the context encoder reads
    prediction: PatchPrediction
    tried: list[TriedCaption]  # all captions, the best skill first; empty for a run without captions
    rank: int | None  # of the caption given, among it and those of other images, 1 = best
    nearest: list[ImageMatch]
    nearest_chance: Chance
    note: str

    @property
    def other(self) -> TriedCaption | None:
        """A caption of another image, to be drawn beside the one given: the alphabet's first, whatever its skill."""
        others = [tried for tried in self.tried if tried.kind == OTHER]
        return min(others, key=lambda tried: tried.caption, default=None)


class HiddenPatches:
    """The panel of hidden patches; embeds the run's held-out images once, when it is made."""

    title = "Hidden patches"

    def __init__(
        self, run: Run, collate: MaskedImageCollator | CaptionCollator, images: ImageSet | CaptionedImages
    ) -> None:
        self.run = run
        self.held_out = HeldOutImages(run, images)
        self.reads_captions = isinstance(images, CaptionedImages) and images.text != "none"
        self.synthetic = images.cfg.source.strip() == WORLD
        self.tokenizer = collate.tokenizer if isinstance(collate, CaptionCollator) else None
        self.max_len = collate.max_len if isinstance(collate, CaptionCollator) else 0
        self.collate = _without_augmentation(collate)
        rows, columns = (self.collate.images if isinstance(self.collate, CaptionCollator) else self.collate).grid
        self.at_once = images_at_once(rows * columns)

    @property
    def about(self) -> str:
        """The text above the image."""
        helped = " and a caption" if self.reads_captions else ""
        return (
            f"The run reads the visible patches of an image{helped}, and predicts the latents of the hidden ones. "
            "The map shows how near each prediction is to its target."
        )

    def ask(self, chosen: Chosen | Refused | None, mask: int, caption: str = "") -> PatchAnswer:
        """Hide patches by mask number `mask` and predict them. Raises UserError without an image."""
        image = require_chosen(chosen)
        caption = self._caption(caption)
        others = self.held_out.others(image.pixels)[: self.at_once - 1]
        batch = self.batch(image.pixels, mask, caption, others)
        prediction = self.predict(batch)
        tried = self._tried(image, mask, caption, others, prediction) if self.reads_captions else []
        return PatchAnswer(
            picture=image_pictures(batch)[0],
            hidden=batch.hidden[0].numpy(),
            shown=batch.shown[0].numpy(),
            prediction=prediction,
            tried=tried,
            rank=_rank(tried),
            nearest=self.held_out.nearest(image.pixels),
            nearest_chance=self.held_out.chance,
            note=" ".join(filter(None, [image.note, self._reading(caption)])),
        )

    def batch(self, pixels: np.ndarray, mask: int, caption: str, others: Sequence[int] | np.ndarray) -> MaskedImages:
        """The image with this mask in row 0, and behind it other held-out images as in any evaluation."""
        rows = [Sample(self._row(pixels, [caption] if caption else []), generator_for(0, "demo", "mask", mask), 0)]
        for number in map(int, others):
            row = self._row(self.held_out.pixels[number], self.held_out.captions[number] if self.reads_captions else [])
            rows.append(Sample(row, generator_for(0, "demo", "other", number), number))
        return self.collate(rows)

    def predict(self, batch: MaskedImages) -> PatchPrediction:
        """How well the hidden patches of row 0 are predicted. Raises UserError if the run predicts something else."""
        method = self.run.experiment.method
        compute = self.run.compute
        with evaluating(method, compute):
            found = latents_of(method, method(batch.to(compute.device)))
        latents = Latents(found.predicted.float().cpu(), found.target.float().cpu())  # [M, D]
        rows = batch.hidden_valid.nonzero()[:, 0]  # [M]
        if len(rows) != len(latents.predicted):
            raise UserError(
                f"{self.run.recipe} does not predict one latent for each hidden patch; there is no map of it"
            )
        positions = batch.hidden_at[batch.hidden_valid]  # [M]
        own = rows == 0  # [M]
        predicted, target = (F.normalize(x, dim=1) for x in (latents.predicted, latents.target))
        cosine = torch.full((batch.hidden.shape[1],), torch.nan)  # [N]
        cosine[positions[own]] = (predicted[own] * target[own]).sum(1)
        unrelated = (predicted[own] @ target[~own].T).numpy()  # [K, M - K], K = hidden patches of row 0
        same = (positions[own][:, None] == positions[~own][None]).numpy()
        skills = image_skills([(latents, rows, batch.size)])  # [B]
        others = f"hidden patches of {batch.size - 1} other images"
        return PatchPrediction(
            cosine=cosine.numpy(),
            chance=chance_of(unrelated, f"the same predictions with all {unrelated.shape[1]} {others}"),
            same_position=float(unrelated[same].mean()) if same.any() else float("nan"),
            skill=float(skills[0]),
            skill_others=float(skills[1:].mean()),
        )

    def _tried(
        self, image: Chosen, mask: int, caption: str, others: np.ndarray, given: PatchPrediction
    ) -> list[TriedCaption]:
        """The prediction with the caption given, the image's own, none, and those of other images."""
        captions = {same_words(caption): (caption, YOURS if caption else NONE)}
        captions.setdefault("", ("", NONE))
        own = self.held_out.captions[image.number] if image.number is not None else []
        for text in own[:1]:
            captions.setdefault(same_words(text), (text, OWN))
        known = {same_words(text) for text in own}
        wrong = 0
        for number in map(int, others):
            text = self.held_out.caption(number)
            if wrong < OTHER_CAPTIONS and same_words(text) not in captions.keys() | known:
                captions[same_words(text)] = (text, OTHER)
                wrong += 1
        tried = [
            TriedCaption(
                text,
                kind,
                words in known,
                given if text == caption else self.predict(self.batch(image.pixels, mask, text, others)),
            )
            for words, (text, kind) in captions.items()
        ]
        return sorted(tried, key=lambda one: -one.prediction.skill)

    def _row(self, pixels: np.ndarray, captions: Sequence[str]) -> Any:
        return pixels if self.tokenizer is None else Captioned(pixels, captions)

    def _caption(self, entered: str) -> str:
        caption = " ".join(entered.split()) if self.reads_captions else ""
        if len(caption) > MOST_CHARS:
            raise UserError(f"the caption has {len(caption)} characters; this page takes at most {MOST_CHARS}")
        return caption

    def _reading(self, caption: str) -> str:
        """What of a caption was cut or is unknown to the run, in sentences."""
        if not caption or self.tokenizer is None:
            return ""
        unknown = UnknownTokens(self.tokenizer)
        unknown.add(self.tokenizer.encode_content([caption]))
        sentence = unknown.sentence(self.synthetic)
        notes = [f"{sentence[0].upper()}{sentence[1:]}."] if sentence else []
        if (length := len(self.tokenizer.encode([caption])[0])) > self.max_len:
            notes.append(f"The caption has {length} tokens, and the run reads the first {self.max_len}.")
        return " ".join(notes)


def _without_augmentation(collate: MaskedImageCollator | CaptionCollator) -> MaskedImageCollator | CaptionCollator:
    """The same masks on images as they are."""
    if isinstance(collate, CaptionCollator):
        return replace(collate, images=replace(collate.images, augment=AugmentConfig()))
    return replace(collate, augment=AugmentConfig())


def _rank(tried: Sequence[TriedCaption]) -> int | None:
    """The rank by skill of the caption given among it and those of other images; None without one."""
    given = next((one.prediction.skill for one in tried if one.kind == YOURS), None)
    if given is None:
        return None
    return 1 + sum(one.prediction.skill > given for one in tried if one.kind == OTHER)
