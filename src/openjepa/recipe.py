"""What a method of one's own is made of: everything that a recipe file needs to import.

    from openjepa.recipe import BaseConfig, Experiment, Method, StepOutput

These names are the public surface for authors of methods; whatever else the package holds may move. A recipe file
defines `Config` (a `BaseConfig` with a section `train`) and `build(config, context) -> Experiment`. Examples:
`examples/my_method.py` (texts) and `examples/my_dataset.py` (data of another kind).
"""

from __future__ import annotations

from openjepa.core.batch import Batch
from openjepa.core.config import BaseConfig, TrainConfig
from openjepa.core.embedding import Embedding, EncoderInputs
from openjepa.core.errors import UserError
from openjepa.core.experiment import BuildContext, Experiment, Sample
from openjepa.core.method import Inspection, Latents, Method, StepOutput
from openjepa.core.progress import Progress
from openjepa.core.tasks import classification
from openjepa.data.text.masked import MaskedText, MaskedTextCollator
from openjepa.data.text.rows import TextRows
from openjepa.data.text.sources import DataConfig
from openjepa.data.tokenizers.text_tokenizer import TokenizerConfig
from openjepa.experiments.text import text_experiment, tokenizer_for
from openjepa.masking.spans import MaskConfig, SpanMasker
from openjepa.models.encoders import EncoderConfig, build_encoder
from openjepa.models.predictors import PredictorConfig, build_predictor
from openjepa.models.target import EMATarget, Frozen, MomentumConfig
from openjepa.models.transformer import gather_positions, mean_pool
from openjepa.objectives.latent import build_objective
from openjepa.objectives.regularizers import RegularizerConfig
from openjepa.objectives.targets import TargetConfig, make_targets, target_layers
from openjepa.objectives.two_views import TwoViews

__all__ = [
    "BaseConfig",
    "Batch",
    "BuildContext",
    "DataConfig",
    "EMATarget",
    "Embedding",
    "EncoderConfig",
    "EncoderInputs",
    "Experiment",
    "Frozen",
    "Inspection",
    "Latents",
    "MaskConfig",
    "MaskedText",
    "MaskedTextCollator",
    "Method",
    "MomentumConfig",
    "PredictorConfig",
    "Progress",
    "RegularizerConfig",
    "Sample",
    "SpanMasker",
    "StepOutput",
    "TargetConfig",
    "TextRows",
    "TokenizerConfig",
    "TrainConfig",
    "TwoViews",
    "UserError",
    "build_encoder",
    "build_objective",
    "build_predictor",
    "classification",
    "gather_positions",
    "make_targets",
    "mean_pool",
    "target_layers",
    "text_experiment",
    "tokenizer_for",
]
