"""VL-JEPA: predict hidden patches with a caption's help; the published one (arXiv 2512.10942) predicts a text latent.

The published VL-JEPA (Chen et al. 2025, arXiv 2512.10942) reads an image and a question and predicts the latent of the
text that answers it. This recipe hides patches, as I-JEPA does. The vision encoder reads only the visible patches.
A predictor reads their latents, those of the caption's tokens and a mask token for each hidden patch, all with
their positions, and estimates the target encoder's latents of the hidden patches; the loss is 1 - cosine. Only the
caption can supply what the visible patches do not contain: `eval` measures how much it does (skill with the right
captions minus skill with those of other images).

A vision encoder that is trained has an EMA copy as its target encoder, and its latents are kept from collapse; a frozen
one (every named one, by default) is its own target encoder. The embedding of an image comes from what was trained: the
mean of the encoder's latents of all patches, or, where the encoder is frozen, of the predictor's, which then reads the
latents of the whole image, no caption, and a mask token for every patch.

`directions=both` comes nearer to the published model: whole images and whole captions are predicted from each other as
well, so that each retrieves the other. Both are then targets, from EMA copies of all trained networks on either side,
the text encoder included (or, with `pairs.target_encoder=self`, from the trained networks themselves, with gradient).
In the one direction above the text encoder makes no targets: the predictor's gradient trains it, and it has no copy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from openjepa.core.compute import device_of
from openjepa.core.config import BaseConfig, TrainConfig
from openjepa.core.embedding import Embedding
from openjepa.core.encoder import Encoder
from openjepa.core.errors import ConfigError
from openjepa.core.experiment import BuildContext, Experiment
from openjepa.core.method import Inspection, Method, StepOutput
from openjepa.core.pairs import Pairs
from openjepa.core.progress import Progress
from openjepa.data.captions.batches import CaptionCollator, CaptionedBatch
from openjepa.data.captions.dataset import CaptionDataConfig, CaptionedImages, TextKind, require_captions
from openjepa.data.captions.latents import FrozenPart, FrozenParts, with_latents
from openjepa.data.images.augment import AugmentConfig
from openjepa.data.images.batches import Images, MaskedImageCollator, mean_latents
from openjepa.data.images.dataset import raw_pixels
from openjepa.data.images.inputs import ImageInputs, image_embedding
from openjepa.data.tokenizers.choice import TokenizerConfig, load_or_learn
from openjepa.masking.blocks import PatchMaskConfig, build_masker, off_target
from openjepa.models.caption_reader import CaptionReader, Context, build_reader
from openjepa.models.cross_modal import CrossModal
from openjepa.models.encoders import MAX_LEN, EncoderConfig
from openjepa.models.predictors import PredictorConfig, build_predictor, predict_everywhere
from openjepa.models.pretrained_vision import PretrainedViT
from openjepa.models.target import EMATarget, Frozen, MomentumConfig
from openjepa.models.transformer import gather_positions, mean_pool
from openjepa.models.vision import VisionConfig, build_vision
from openjepa.models.vit import ViT
from openjepa.objectives.latent import build_objective
from openjepa.objectives.pairs import PairsConfig, build_pair_loss
from openjepa.objectives.regularizers import RegularizerConfig, build_regularizer
from openjepa.objectives.targets import TargetConfig, make_targets, merged, target_layers
from openjepa.tasks.caption_figure import CaptionFigure
from openjepa.tasks.captions import CaptionTasks

TEXT_TARGETS = {
    None: "none: captions are read, never predicted",
    "ema": "EMA of the text encoder",
    "self": "the text encoder itself, with its gradient",
}
PREDICTOR_MEAN = "the mean of the predictor's latents of all patches (whole image, no caption); the encoder is frozen"


class Config(BaseConfig):
    """Everything that defines a VL-JEPA run. Defaults are the preset tiny, measured in docs/lab-log/vl-jepa.md."""

    FIRST = ("data", "text", "encoder", "mask", "objective", "regularizer", "train")

    data: CaptionDataConfig = CaptionDataConfig(world_images=6000)
    text: TextKind = "caption"
    """what the predictor reads beside the patches: the image's caption, none, or that of another image (ablation)"""
    tokenizer: TokenizerConfig = TokenizerConfig(vocab_size=600)
    mask: PatchMaskConfig = PatchMaskConfig(strategy="block", ratio=0.75)
    encoder: VisionConfig = VisionConfig(dim=96, depth=2, heads=4)
    text_encoder: EncoderConfig = EncoderConfig(dim=96, depth=1, heads=4, max_len=32)
    train_vision: bool | None = None
    """whether the vision encoder is trained, with an EMA copy as its target encoder, or is frozen and its own target
    encoder; unset = one from scratch is trained, one with a name is frozen"""
    train_text: bool | None = None
    """whether the text encoder is trained; unset = one from scratch is, one with a name is frozen"""
    predictor: PredictorConfig = PredictorConfig(width=96, depth=2)
    pairs: PairsConfig = PairsConfig()
    target: TargetConfig = TargetConfig(norm="standardize")
    momentum: MomentumConfig = MomentumConfig(final=0.999)
    """of the target encoder, where the vision encoder is trained, and of all EMA copies of directions=both"""
    objective: str = "cosine"
    """mse | l1 | smooth_l1 | cosine | package.module:function"""
    regularizer: RegularizerConfig = RegularizerConfig(weight=25.0, covariance=8.0, mean=0.03)
    """on the latents of visible patches, where the vision encoder is trained"""
    regularized: Literal["mean", "patches"] = "mean"
    """what it acts on: their mean over each image, or each of them; whitening patches leaves what all of them share
    strong in the embedding"""
    cache: bool = True
    """keep frozen encoders' latents of the training data on disk: later epochs encode only the visible patches"""
    train: TrainConfig = TrainConfig(
        lr=2e-3,
        precision="bf16-mixed",
        threads=1,
        health_every=250,
        health_samples=512,
    )

    @property
    def vision_learns(self) -> bool:
        return self.encoder.name is None if self.train_vision is None else self.train_vision

    @property
    def text_learns(self) -> bool:
        return self.text_encoder.name is None if self.train_text is None else self.train_text

    @property
    def pair_targets_are_averaged(self) -> bool:
        """Whether the targets of `directions=both` come from EMA copies."""
        return self.pairs.directions == "both" and self.pairs.target_encoder == "ema"

    def unused_here(self) -> set[str]:
        if self.vision_learns:
            return set()
        unused = {"regularizer", "regularized"}
        return unused if self.pair_targets_are_averaged else unused | {"momentum"}


class VLJEPA(Method[CaptionedBatch]):
    """Vision encoder, its target encoder, caption reader, predictor and their loss."""

    def __init__(self, config: Config, vision: ViT | PretrainedViT, reader: CaptionReader | None) -> None:
        super().__init__()
        self.config = config
        self.patches = vision.max_len
        self.student = vision if config.vision_learns else Frozen(vision)
        self.teacher = EMATarget(vision, config.momentum.schedule()) if config.vision_learns else None
        self.reader = reader
        positions = self.patches + (0 if reader is None else reader.max_len)
        self.predictor = build_predictor(config.predictor, vision.dim, vision.dim, positions)
        self.distance = build_objective(config.objective)
        self.regularizer = build_regularizer(config.regularizer)
        self.cross_modal = build_cross_modal(config, vision.dim, reader)
        self.pair_loss = build_pair_loss(config.pairs)

    def encode_context(self, batch: CaptionedBatch) -> Tensor:
        """Latents of the visible patches [B, V, D], which attend only to each other."""
        return self.student(batch.images, batch.context_at, batch.context_valid)

    def predict(self, batch: CaptionedBatch, context: Tensor) -> Tensor:
        """Estimated latents of the hidden patches [K, D]. Positions of words follow those of all patches."""
        visible = Context(context, batch.context_at, batch.context_valid)
        if self.reader is not None:
            visible = self.reader.append_words(visible, batch.captions, self.patches)
        latents, positions, valid = visible
        states = self.predictor(latents, positions, valid, None, batch.hidden_at, batch.hidden_valid)  # [B, M, D]
        return batch.pick(states, batch.hidden_valid)

    @torch.no_grad()
    def encode_whole(self, images: Tensor) -> Tensor:
        """The target encoder's latents of all patches [B, N, D] of whole images."""
        encoder = self.student if self.teacher is None else self.teacher
        return merged(target_layers(self.config.target, encoder.states(images)))

    def whole_latents(self, batch: CaptionedBatch) -> Tensor:
        """The same for a batch [B, N, D]: cached with the data, where the encoder is frozen, or computed."""
        return self.encode_whole(batch.images) if batch.latents is None else batch.latents

    def targets_at(self, batch: CaptionedBatch, whole: Tensor, positions: Tensor) -> Tensor:
        """Targets [K, D] from the latents of whole images [B, N, D] at these positions [B, M]."""
        return make_targets(self.config.target, [batch.pick(gather_positions(whole, positions), batch.hidden_valid)])

    def forward(self, batch: CaptionedBatch) -> StepOutput:
        whole = self.whole_latents(batch)  # [B, N, D]
        target = self.targets_at(batch, whole, batch.hidden_at)  # [K, D]
        context = self.encode_context(batch)  # [B, V, D]
        predicted = self.predict(batch, context)  # [K, D]
        terms = {"prediction": self.distance(predicted, target)}
        if self.teacher is not None:
            if self.config.regularized == "mean":
                visible = mean_pool(context, batch.context_valid)  # [B, D]
            else:
                visible = batch.pick(context, batch.context_valid)  # [visible patches, D]
            terms |= self.regularizer(visible, batch.draw)
        if self.cross_modal is not None:
            terms |= self.pair_loss(self.pairs(batch, whole), batch.draw)
        return StepOutput(terms, self.distance.latents(predicted, target))

    def pairs(self, batch: CaptionedBatch, whole: Tensor | None = None) -> Pairs:
        """directions=both: whole images and captions, predicted from each other; `whole` are its `whole_latents`."""
        assert self.cross_modal is not None
        assert self.reader is not None
        whole = self.whole_latents(batch) if whole is None else whole  # [B, N, D]
        images = whole  # [B, N, D]
        if self.teacher is not None:
            images = self.student(batch.images)
            if not self.config.target.is_top_layer:  # the projection of the targets is learned on the top layer
                whole = self.teacher(batch.images)
        return self.cross_modal(images.float().mean(1), whole.float().mean(1), batch.captions, self.reader)

    def predict_from_context(self, batch: CaptionedBatch) -> Tensor:
        return self.predict(batch, self.encode_context(batch))

    def inspect(self, batch: CaptionedBatch) -> Inspection:
        whole = self.whole_latents(batch)  # [B, N, D]
        copied = self.targets_at(batch, whole, batch.nearest_visible())  # [K, D]
        return batch.inspection(
            copied=self.distance.copied(copied, lambda: self.targets_at(batch, whole, batch.hidden_at)),
            teacher=None if self.teacher is None else self.teacher(batch.images).float().mean(1),
        )

    def encoders(self) -> dict[str, Encoder]:
        encoders: dict[str, Encoder | None] = {"student": self.student, "teacher": self.teacher}
        if self.reader is not None:
            encoders["text"] = self.reader.encoder
        if self.cross_modal is not None:
            encoders["text_teacher"] = self.cross_modal.target_text_encoder
        return {name: encoder for name, encoder in encoders.items() if encoder is not None}

    def embed(self, batch: Images) -> Tensor:
        if self.config.vision_learns:
            return mean_latents(self.student, batch)
        return mean_latents(lambda images: predict_everywhere(self.predictor, self.student(images)), batch)

    def after_step(self, progress: Progress) -> None:
        if self.teacher is not None:
            self.teacher.update(self.student, progress)
        if self.cross_modal is not None and self.reader is not None:
            self.cross_modal.update(self.reader, progress)


def build_cross_modal(config: Config, image_dim: int, reader: CaptionReader | None) -> CrossModal | None:
    """The networks that directions=both adds; None for one direction. Raises ConfigError where no text is read."""
    if config.pairs.directions == "image":
        return None
    if reader is None:
        raise ConfigError("directions=both predicts captions from images: set text=caption, or directions=image")
    momentum = config.momentum if config.pair_targets_are_averaged else None
    return CrossModal(image_dim, reader, config.pairs.dim, config.pairs.width, momentum)


def build(config: Config, context: BuildContext) -> Experiment:
    """The experiment that `config` describes. Decodes the images if the tokenizer is trained on their captions."""
    require_captions(config.data)
    train_data, eval_data = (CaptionedImages(config.data, split, config.text) for split in ("train", "eval"))
    vision = build_vision(config.encoder, config.data.size, context)
    inputs = ImageInputs(config.data.size, vision.grid)
    saved = context.asset("tokenizer.json")
    tokenizer = load_or_learn(config.tokenizer, train_data.texts, saved, config.text_encoder.named_in("text_encoder"))
    reader = None
    if config.text != "none":
        reader = build_reader(config.text_encoder, config.text_learns, tokenizer.vocabulary, vision.dim, context)
    method = VLJEPA(config, vision, reader)
    no_augmentation = AugmentConfig()  # a mirror image has other captions
    masked = MaskedImageCollator(inputs.grid, build_masker(config.mask), no_augmentation)
    collate = CaptionCollator(masked, tokenizer, MAX_LEN if reader is None else reader.max_len)
    return Experiment(
        method=method,
        train_data=with_latents(train_data, collate, frozen_parts(config, method)) if config.cache else train_data,
        eval_data=eval_data,
        collate=collate,
        embedding=embedding_of(config, inputs),
        train=config.train,
        mask_ratio=config.mask.ratio if config.mask.strategy == "random" else None,
        tasks=CaptionTasks(config.data, eval_data, collate, VLJEPA.pairs if method.cross_modal else None).all,
        baselines={
            "pixels": lambda images: raw_pixels(images, inputs.pixels),
            **encoder_baseline(config, method, inputs),
        },
        unknown=None if reader is None else cache(lambda: train_data.unknown(tokenizer)),
        notes=lambda: notes(config),
        remarks=lambda: off_target(config.mask, inputs.grid),
        pictures=collate.pictures,
        figures={"captions": CaptionFigure(eval_data, collate)},
    )


def frozen_parts(config: Config, method: VLJEPA) -> FrozenParts:
    """The encoders whose latents of the training data can be kept on disk."""
    vision = text = None
    if not config.vision_learns:
        vision = FrozenPart(method.student, method.encode_whole, method.student.dim, (config.encoder, config.target))
    if method.reader is not None and not config.text_learns:
        text = FrozenPart(method.reader.encoder, method.reader.encoder, method.reader.width, (config.text_encoder,))
    return FrozenParts(vision, text)


def embedding_of(config: Config, inputs: ImageInputs) -> Embedding:
    """The embedding: the encoder's mean latent where it is trained, else the predictor's."""
    if config.vision_learns:
        return image_embedding(inputs)
    return image_embedding(inputs, pooling="predicted", note=PREDICTOR_MEAN)


def encoder_baseline(
    config: Config, method: VLJEPA, inputs: ImageInputs
) -> dict[str, Callable[[Sequence[Any]], np.ndarray]]:
    """A baseline that needs no training: the mean latent of each image by the frozen vision encoder."""

    @torch.no_grad()
    def encode(images: Sequence[Any]) -> np.ndarray:
        """[B, D] float32."""
        return mean_latents(method.student, inputs(images).to(device_of(method))).cpu().numpy()

    return {} if config.vision_learns else {"encoder": encode}


def notes(config: Config) -> dict[str, Any]:
    """The sources of the targets and of the embedding, for the run's log."""
    frozen = "the frozen vision encoder itself: there is no EMA of frozen weights"
    sources: dict[str, Any] = {"target": "EMA of the vision encoder" if config.vision_learns else frozen}
    if config.text_learns and config.text != "none":
        kind = config.pairs.target_encoder if config.pairs.directions == "both" else None
        sources["text_target"] = TEXT_TARGETS[kind]
    if not config.vision_learns:
        sources["embedding"] = PREDICTOR_MEAN
    return sources
