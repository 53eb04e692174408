"""data2vec for text: predict, at [MASK], the mean of a teacher's top layers (Baevski et al. 2022); VICReg beside it.

openjepa check examples/my_method.py          openjepa train examples/my_method.py data=corpus.jsonl
"""

from torch import nn

import openjepa.recipe as oj


class Config(oj.BaseConfig):
    """Everything that defines a run."""

    data: oj.DataConfig = oj.DataConfig()
    tokenizer: oj.TokenizerConfig = oj.TokenizerConfig()
    encoder: oj.EncoderConfig = oj.EncoderConfig()
    mask: oj.MaskConfig = oj.MaskConfig()
    target: oj.TargetConfig = oj.TargetConfig(norm="standardize", layers=2)
    regularizer: oj.RegularizerConfig = oj.RegularizerConfig(covariance=1.0)
    train: oj.TrainConfig = oj.TrainConfig()


class Data2Vec(oj.Method[oj.MaskedText]):
    def __init__(self, config, tokenizer, context):
        super().__init__()
        self.config, self.mask_id = config, tokenizer.mask_id
        self.student = oj.build_encoder(config.encoder, tokenizer.vocabulary, context)
        self.teacher = oj.EMATarget(self.student, oj.MomentumConfig().schedule())
        self.predictor = nn.Linear(self.student.dim, self.student.dim)
        self.distance = oj.build_objective("smooth_l1")
        self.regularize = oj.TwoViews(config.regularizer)

    def predict_from_context(self, batch):
        states = self.student(batch.ids.masked_fill(batch.hidden, self.mask_id), batch.valid)  # [B, T, D]
        return self.predictor(batch.pick(states, batch.hidden))  # [M, D]

    def forward(self, batch):
        layers = oj.target_layers(self.config.target, self.teacher.states(batch.ids, batch.valid))
        target = oj.make_targets(self.config.target, [batch.pick(layer, batch.hidden) for layer in layers])  # [M, D]
        predicted = self.predict_from_context(batch)  # [M, D]
        terms = self.regularize(self.embed(batch), None, batch.draw) | {"prediction": self.distance(predicted, target)}
        return oj.StepOutput(terms, self.distance.latents(predicted, target))

    def embed(self, batch):
        return oj.mean_pool(self.student(batch.ids, batch.valid), batch.valid)  # [B, D]

    def inspect(self, batch):
        rows, positions = batch.hidden.nonzero().unbind(1)  # [M]
        return oj.Inspection(rows=rows, positions=positions)

    def after_step(self, progress):
        self.teacher.update(self.student, progress)


def build(config, context):
    tokenizer = oj.tokenizer_for(config, config.encoder.named_in("encoder"), context)
    method = Data2Vec(config, tokenizer, context)
    collate = oj.MaskedTextCollator(tokenizer, oj.SpanMasker(config.mask.ratio, config.mask.mean_span))
    rows, inputs = oj.TextRows(tokenizer, method.student.max_len), collate.inputs(method.student.max_len)
    return oj.text_experiment(method, config, rows, collate, inputs)
