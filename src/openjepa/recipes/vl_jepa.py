"""VL-JEPA: predict the latents of an image's hidden patches from the visible ones and from its caption.

The vision encoder reads the visible patches and no others. A predictor reads their latents, those of the caption's
tokens and a mask token for each hidden patch, all told their places, and estimates what the target encoder says of the
hidden patches; the loss is 1 - cosine. What the visible patches leave open only the caption can tell: `eval` asks how
much it does (skill with the right captions less skill with those of other images).

A vision encoder that is trained has a slow average of itself (EMA) as its target, and its latents are kept from
collapse; a frozen one (all with a name, by default) is its own target. The embedding of an image comes from what was
trained: the mean of the encoder's latents of all patches, or, where the encoder is frozen, of the predictor's, which
then reads the latents of the whole image, no caption, and a mask token for every patch.

`directions=both` predicts whole images and whole captions from each other as well, so that one finds the other. Both
are targets then, and come from EMA copies of all that learns on either side, the text encoder included (or, with
`pairs.target_from=self`, are what learns, with its gradient). In the one direction above the text encoder is never a
target: it learns from the predictor's gradient and has no copy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from openjepa.core.compute import device_of
from openjepa.core.config import TrainConfig
from openjepa.core.encoder import Encoder
from openjepa.core.evaluating import evaluating
from openjepa.core.experiment import BuildContext, Experiment
from openjepa.core.method import Inspection, Method, StepOutput
from openjepa.core.progress import Progress
from openjepa.data.augment import AugmentConfig
from openjepa.data.caption_batches import CaptionCollator, CaptionedBatch
from openjepa.data.caption_figure import CaptionFigure
from openjepa.data.caption_latents import FrozenPart, WithLatents
from openjepa.data.caption_tasks import CaptionTasks
from openjepa.data.captions import CaptionDataConfig, CaptionedImages, TextKind, require_captions
from openjepa.data.image_batches import Images, MaskedImageCollator, images_at_once
from openjepa.data.image_inputs import ImageInputs, image_embedding
from openjepa.data.images import raw_pixels
from openjepa.data.tokenizer import TokenizerConfig, load_or_learn
from openjepa.masking.blocks import PatchMaskConfig, build_masker, off_target
from openjepa.models.caption_reader import CaptionReader, EncodersConfig, build_reader
from openjepa.models.encoders import MAX_LEN
from openjepa.models.predictors import PredictorConfig, build_predictor
from openjepa.models.pretrained_vision import PretrainedViT
from openjepa.models.target import EMATarget, Frozen, MomentumConfig
from openjepa.models.transformer import mean_pool, recompute_activations, take
from openjepa.models.two_way import Pairs, build_two_way
from openjepa.models.vision import build_vision
from openjepa.models.vit import ViT
from openjepa.objectives.latent import build_objective
from openjepa.objectives.pairs import PairsConfig, build_pair_loss
from openjepa.objectives.regularizers import RegularizerConfig, build_regularizer
from openjepa.objectives.targets import TargetConfig, make_targets, merged, target_layers

OF_THE_PREDICTOR = "the mean of the predictor's latents of all patches (whole image, no caption); the encoder is frozen"


class Config(EncodersConfig):
    """Everything that defines a VL-JEPA run."""

    FIRST = ("data", "text", "encoder", "mask", "objective", "regularizer", "train")

    data: CaptionDataConfig = CaptionDataConfig()
    text: TextKind = "caption"
    """what the predictor reads beside the patches: the image's caption, none, or that of another image (ablation)"""
    tokenizer: TokenizerConfig = TokenizerConfig(vocab_size=1000)
    mask: PatchMaskConfig = PatchMaskConfig(strategy="block", ratio=0.6)
    predictor: PredictorConfig = PredictorConfig()
    pairs: PairsConfig = PairsConfig()
    target: TargetConfig = TargetConfig()
    momentum: MomentumConfig = MomentumConfig()
    """of the target encoder, where the vision encoder learns, and of all EMA copies of directions=both"""
    objective: str = "cosine"
    """mse | l1 | smooth_l1 | cosine | package.module:function"""
    regularizer: RegularizerConfig = RegularizerConfig()
    """on the latents of visible patches, where the vision encoder learns"""
    regularized: Literal["patches", "mean"] = "patches"
    """whether that is every one or their mean; of whitened patches, what all share stays strong in the embedding"""
    cache: bool = True
    """keep what frozen encoders say of the training data on disk: later epochs encode the visible patches only"""
    recompute: bool = False
    """compute activations again in the backward pass instead of keeping them: less memory, a third more time"""
    train: TrainConfig = TrainConfig()

    def unused_here(self) -> set[str]:
        if self.vision_learns:
            return set()
        copies = self.pairs.directions == "both" and self.pairs.target_from == "ema"
        return {"regularizer", "regularized"} if copies else {"momentum", "regularizer", "regularized"}


class VLJEPA(Method[CaptionedBatch]):
    """Vision encoder, its target, caption reader, predictor and their loss."""

    def __init__(self, config: Config, vision: ViT | PretrainedViT, reader: CaptionReader | None) -> None:
        super().__init__()
        self.config, self.patches = config, vision.max_len
        self.student = vision if config.vision_learns else Frozen(vision)
        self.teacher = EMATarget(vision, config.momentum.schedule()) if config.vision_learns else None
        self.reader = reader
        places = self.patches + (0 if reader is None else reader.max_len)
        self.predictor = build_predictor(config.predictor, vision.dim, vision.dim, places)
        self.two_way = self.text_teacher = self.projections_teacher = None
        if config.pairs.directions == "both":
            self.two_way = build_two_way(vision.dim, reader, config.pairs.dim, config.pairs.width)
            if config.pairs.target_from == "ema":
                self.projections_teacher = EMATarget(self.two_way.projections, config.momentum.schedule())
            if self.projections_teacher is not None and reader is not None and config.text_learns:
                self.text_teacher = EMATarget(reader.encoder, config.momentum.schedule())
        self.match = build_pair_loss(config.pairs)
        self.distance = build_objective(config.objective)
        self.regularizer = build_regularizer(config.regularizer)
        if config.recompute:
            recompute_activations(self)

    def encode_context(self, batch: CaptionedBatch) -> Tensor:
        """Latents of the visible patches [B, V, D]."""
        return self.student(batch.images, batch.context_at, batch.context_valid)

    def predict(self, batch: CaptionedBatch, context: Tensor) -> Tensor:
        """The estimated latents of the hidden patches [M, D]. Places of words come behind those of all patches."""
        visible = (context, batch.context_at, batch.context_valid)
        if self.reader is not None and batch.text_ids.shape[1]:
            visible = self.reader.beside(visible, self.patches, batch.text_ids, batch.text_valid, batch.words)
        latents, positions, valid = visible
        states = self.predictor(latents, positions, valid, None, batch.hidden_at, batch.hidden_valid)  # [B, H, D]
        return batch.pick(states, batch.hidden_valid)

    def predict_from_context(self, batch: CaptionedBatch) -> Tensor:
        return self.predict(batch, self.encode_context(batch))

    def forward(self, batch: CaptionedBatch) -> StepOutput:
        whole = self.look_at(batch)  # [B, N, D]
        target = self.targets_at(batch, whole, batch.hidden_at)  # [M, D]

        context = self.encode_context(batch)  # [B, V, D]
        predicted = self.predict(batch, context)  # [M, D]
        terms = {"prediction": self.distance(predicted, target)}
        if self.teacher is not None:
            terms |= self.regularizer(self.regularized_rows(batch, context), batch.draw)
        if self.two_way is not None:
            terms |= self.match(self.pairs(replace(batch, latents=whole)), batch.draw)  # look once
        return StepOutput(terms, self.distance.latents(predicted, target))

    def regularized_rows(self, batch: CaptionedBatch, context: Tensor) -> Tensor:
        """What must not collapse: the mean of each image's visible patches [B, D], or every one of them."""
        if self.config.regularized == "mean":
            return mean_pool(context, batch.context_valid)
        return batch.pick(context, batch.context_valid)

    def pairs(self, batch: CaptionedBatch) -> Pairs:
        """directions=both: whole images and captions, each as it is predicted from the other, and their targets."""
        assert self.two_way is not None
        assert self.reader is not None
        whole = self.look_at(batch)  # [B, N, D]
        images = whole if self.teacher is None else self.student(batch.images)  # [B, N, D]
        texts = self.reader.whole(batch.text_ids, batch.text_valid, batch.words)  # [B, E]
        targets = self.pair_targets(whole.float().mean(1), texts, batch)
        return self.two_way(images.float().mean(1), texts, targets)

    @torch.no_grad()
    def pair_targets(self, images: Tensor, texts: Tensor, batch: CaptionedBatch) -> tuple[Tensor, Tensor] | None:
        """Targets [B, Z] of images [B, D], read by the target encoder, and of captions; None = the learners' own.

        `texts` [B, E] are those that the text encoder has read; where it learns, its EMA copy reads them once more.
        """
        if self.projections_teacher is None:
            return None
        if self.text_teacher is not None:
            states = self.text_teacher(batch.text_ids, batch.text_valid)  # [B, T, E]
            texts = mean_pool(states, batch.text_valid)  # [B, E]
        return self.projections_teacher(images, texts)

    def compared(self, batch: CaptionedBatch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """directions=both: targets of images and of captions, and either as predicted from the other, each [B, Z]."""
        pairs = self.pairs(batch)
        return pairs.image_target, pairs.text_target, pairs.image_from_text, pairs.text_from_image

    def look_at(self, batch: CaptionedBatch) -> Tensor:
        """What targets are made of: the target encoder's latents of all patches [B, N, D], kept or computed."""
        return self.teach(batch.images) if batch.latents is None else batch.latents

    @torch.no_grad()
    def teach(self, images: Tensor) -> Tensor:
        return merged(target_layers(self.config.target, (self.teacher or self.student).states(images)))

    def targets_at(self, batch: CaptionedBatch, whole: Tensor, positions: Tensor) -> Tensor:
        """whole [B, N, D] -> what is the target at positions [B, H], where a patch is hidden [M, D]."""
        return make_targets(self.config.target, [batch.pick(take(whole, positions), batch.hidden_valid)])

    def inspect(self, batch: CaptionedBatch) -> Inspection:
        whole = self.look_at(batch)  # [B, N, D]
        copied = self.targets_at(batch, whole, batch.nearest_visible())  # [M, D]
        return Inspection(
            rows=batch.hidden_valid.nonzero()[:, 0],
            positions=batch.hidden_at[batch.hidden_valid],
            copied=self.distance.copied(copied, lambda: self.targets_at(batch, whole, batch.hidden_at)),
            teacher=None if self.teacher is None else self.teacher(batch.images).float().mean(1),
        )

    def encoders(self) -> dict[str, Encoder]:
        text = None if self.reader is None else self.reader.encoder
        found: dict[str, Encoder | None] = {"student": self.student, "teacher": self.teacher}
        found |= {"text": text, "text_teacher": self.text_teacher}
        return {name: encoder for name, encoder in found.items() if encoder is not None}

    def embed(self, batch: Images) -> Tensor:
        return self.in_parts(self.student if self.teacher is not None else self.predict_all, batch)

    def in_parts(self, encode: Callable[[Tensor], Tensor], batch: Images) -> Tensor:
        """[B, D] the mean latent of each image, read a few images at once: users may embed large batches."""
        parts = batch.images.split(images_at_once(self.patches))
        return torch.cat([encode(images).float().mean(1) for images in parts])

    def predict_all(self, images: Tensor) -> Tensor:
        """images [B, 3, S, S] -> the predictor's latents of all patches [B, N, D], from all patches and no caption."""
        whole = self.student(images)  # [B, N, D]
        at = torch.arange(whole.shape[1], device=whole.device).expand(len(whole), -1)  # [B, N]
        every = torch.ones_like(at, dtype=torch.bool)  # [B, N]
        return self.predictor(whole, at, every, None, at, every)

    def after_step(self, progress: Progress) -> None:
        if self.teacher is not None:
            self.teacher.update(self.student, progress)
        if self.text_teacher is not None and self.reader is not None:
            self.text_teacher.update(self.reader.encoder, progress)
        if self.projections_teacher is not None and self.two_way is not None:
            self.projections_teacher.update(self.two_way.projections, progress)


def build(config: Config, context: BuildContext) -> Experiment:
    """The experiment that `config` describes. Decodes the images if the tokenizer has to learn from their captions."""
    require_captions(config.data)
    train_data, eval_data = (CaptionedImages(config.data, split, config.text) for split in ("train", "eval"))
    vision = build_vision(config.encoder, config.data.size, context)
    saved = context.assets / "tokenizer.json"
    tokenizer = load_or_learn(config.tokenizer, train_data.texts, saved, config.text_encoder.named_in("text_encoder"))
    reader = None if config.text == "none" else build_reader(config, tokenizer.vocabulary, vision.dim, context)
    method = VLJEPA(config, vision, reader)
    pixels, grid = config.data.size, vision.grid
    masked = MaskedImageCollator(grid, build_masker(config.mask), AugmentConfig())  # a mirror image has other captions
    collate = CaptionCollator(masked, tokenizer, reader.max_len if reader is not None else MAX_LEN)

    seen = FrozenPart(method.student, method.teach, vision.dim, config.target)
    read = None if reader is None else FrozenPart(reader.encoder, reader.encoder, reader.width)
    kept = None if config.vision_learns else seen, None if config.text_learns else read
    rows = WithLatents(train_data, collate, vision.max_len, *kept) if config.cache else train_data
    inputs = ImageInputs(pixels, grid)
    described = image_embedding(inputs)
    if not config.vision_learns:
        described = image_embedding(inputs, pooling="predicted", note=OF_THE_PREDICTOR)
    baselines: dict[str, Any] = {"pixels": lambda inputs: raw_pixels(inputs, pixels)}
    if not config.vision_learns:
        baselines["encoder"] = lambda images: encoder_alone(method, inputs(images))
    return Experiment(
        method=method,
        train_data=rows,
        eval_data=eval_data,
        collate=collate,
        embedding=described,
        train=config.train,
        mask_ratio=config.mask.ratio if config.mask.strategy == "random" else None,
        tasks=CaptionTasks(config.data, eval_data, collate, VLJEPA.compared if method.two_way else None).all,
        baselines=baselines,
        unknown=None if reader is None else lambda: train_data.unknown(tokenizer),
        notes=lambda: _notes(config),
        remarks=lambda: off_target(config.mask, grid),
        pictures=collate.pictures,
        figures={"captions": CaptionFigure(eval_data, collate)},
    )


def encoder_alone(method: VLJEPA, batch: Images) -> np.ndarray:
    """[B, D] float32 mean latent of each image by the vision encoder: what a frozen one gives without any training."""
    with evaluating(method):
        return method.in_parts(method.student, batch.to(device_of(method))).cpu().numpy()


def _notes(config: Config) -> dict[str, Any]:
    """What is a target and what is not, for the run's log."""
    frozen = "the frozen vision encoder itself: there is no EMA of frozen weights"
    notes: dict[str, Any] = {"target": "EMA of the vision encoder" if config.vision_learns else frozen}
    if config.text_learns and config.text != "none":
        notes["text_target"] = "none: captions are read, never predicted"
        if config.pairs.directions == "both":
            slow = config.pairs.target_from == "ema"
            notes["text_target"] = "EMA of the text encoder" if slow else "the text encoder itself, with its gradient"
    if not config.vision_learns:
        notes["embedding"] = OF_THE_PREDICTOR
    return notes
