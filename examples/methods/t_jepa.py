"""T-JEPA on one page: predict the mean latent of each hidden span of a text from the tokens around it.

The student reads the visible tokens alone. A predictor, given the positions of the hidden ones, estimates their
latents; an EMA teacher, which reads each hidden span alone, gives the targets. VICReg keeps embeddings from collapsing.
"""

import copy

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pad_sequence

VARIANCE, COVARIANCE, MEAN, INVARIANCE = 25.0, 40.0, 7.5, 15.0  # weights, beside 1 for the prediction


def transformer(dim, depth, heads):
    block = nn.TransformerEncoderLayer(dim, heads, 4 * dim, 0.0, F.gelu, batch_first=True, norm_first=True)
    return nn.TransformerEncoder(block, depth, nn.LayerNorm(dim), enable_nested_tensor=False)


class Encoder(nn.Module):
    def __init__(self, vocab, dim, depth, heads, max_len):
        super().__init__()
        self.token, self.position = nn.Embedding(vocab, dim), nn.Embedding(max_len, dim)
        self.trunk = transformer(dim, depth, heads)

    def forward(self, ids, readable):  # ids [B, T]; no token reads one that is not readable [B, T] bool
        x = self.token(ids) + self.position.weight[: ids.shape[1]]  # [B, T, D]
        return self.trunk(x, src_key_padding_mask=~readable)  # [B, T, D]


class Predictor(nn.Module):  # narrow, with a mask token at each hidden position: I-JEPA, Assran et al. 2023
    def __init__(self, dim, width, depth, heads, max_len):
        super().__init__()
        self.enter, self.leave = nn.Linear(dim, width), nn.Linear(width, dim)
        self.position, self.mask_token = nn.Embedding(max_len, width), nn.Parameter(0.02 * torch.randn(width))
        self.trunk = transformer(width, depth, heads)

    def forward(self, context, visible, hidden):  # [B, T, D], [B, T] bool, [B, T] bool
        seen = self.enter(context) + self.position.weight[: context.shape[1]]  # [B, T, W]
        queries = (self.mask_token + self.position.weight[: context.shape[1]]).expand_as(seen)  # [B, T, W]
        x = self.trunk(torch.cat([seen, queries], 1), src_key_padding_mask=~torch.cat([visible, hidden], 1))
        return self.leave(x[:, context.shape[1] :])  # [B, T, D], of use where hidden


def hide_spans(length, mean_span):
    """[length] bool: half of the tokens, in spans of random lengths with at least one visible token between them."""
    hide = length // 2
    spans = max(1, round(hide / mean_span))
    cuts = torch.randperm(hide - 1)[: spans - 1].sort().values + 1
    lengths = torch.diff(cuts, prepend=torch.tensor([0]), append=torch.tensor([hide]))  # [S], at least 1 each
    before = torch.randperm(length - hide + 1)[:spans].sort().values  # [S] visible tokens before each span
    hidden = torch.zeros(length, dtype=torch.bool)
    for start, tokens in zip(before + lengths.cumsum(0) - lengths, lengths, strict=True):
        hidden[start : start + tokens] = True
    return hidden


def means_of(flat, lengths):
    """flat [sum of lengths, D] -> [N, D], the mean of each of the N stretches that follow one another."""
    return torch.stack([part.mean(0) for part in flat.split(lengths.tolist())])


def vicreg(z):
    """z [B, D]: each dimension should vary, and no two together. VICReg, Bardes et al. 2022."""
    covariance = torch.cov(z.T)  # [D, D], eq. 3
    variance = covariance.diagonal()  # [D]
    return {
        "variance": VARIANCE * F.relu(1 - (variance + 1e-4).sqrt()).mean(),  # eq. 1 and 2
        "covariance": COVARIANCE * (covariance - torch.diag(variance)).square().sum() / z.shape[1],  # eq. 4
        "mean": MEAN * z.mean(0).square().mean(),  # not in the paper: keeps embeddings off a cone
    }


def loss_terms(student, teacher, predictor, ids, real, hidden):
    """ids [B, T]; real (no padding), hidden [B, T] bool -> the terms of the loss, which is their sum."""
    visible = real & ~hidden  # [B, T]
    starts = hidden & ~F.pad(hidden, (1, -1))  # [B, T], a span starts here
    lengths = starts[hidden].cumsum(0).bincount()[1:]  # [S], tokens of each span of the batch

    # To the student, hidden tokens are padding: nothing reads them. (To leave them out gives the same and is cheaper.)
    context = student(ids, visible)  # [B, T, D]
    tokens = predictor(context, visible, hidden)[hidden]  # [hidden tokens, D]
    predicted = means_of(tokens, lengths)  # [S, D]

    # The teacher reads each span as a text of its own: a target holds nothing that the context shows.
    span_ids = pad_sequence(ids[hidden].split(lengths.tolist()), batch_first=True)  # [S, L]
    span_real = torch.arange(span_ids.shape[1]) < lengths[:, None]  # [S, L]
    with torch.no_grad():
        target = means_of(teacher(span_ids, span_real)[span_real], lengths)  # [S, D]
        target = (target - target.mean(0)) / (target.var(0, correction=0) + 1e-6).sqrt()  # over the batch
    terms = {"prediction": F.smooth_l1_loss(predicted, target)}

    # Two views of a text, its visible and its hidden part: both kept from collapsing, and pulled together.
    first = means_of(context[visible], visible.sum(1))  # [B, D]
    second = means_of(student(span_ids, span_real)[span_real], hidden.sum(1))  # [B, D]
    a, b = vicreg(first), vicreg(second)
    terms |= {name: (a[name] + b[name]) / 2 for name in a}
    terms["invariance"] = INVARIANCE * F.mse_loss(first, second)  # VICReg, eq. 5
    return terms


@torch.no_grad()
def update_teacher(teacher, student, done):
    """Part `done` of the run, in [0, 1]: the momentum rises, as in I-JEPA. BYOL, Grill et al. 2020, eq. 1."""
    momentum = 0.99 + (0.9995 - 0.99) * done
    for slow, fast in zip(teacher.parameters(), student.parameters(), strict=True):
        slow.lerp_(fast, 1 - momentum)


def main(steps=60):
    """Texts of 24 to 40 words about one of eight topics, each with four words of its own."""
    torch.manual_seed(0)
    student, predictor = Encoder(32, 64, 1, 4, 40), Predictor(64, 32, 1, 4, 40)
    teacher = copy.deepcopy(student).requires_grad_(False)
    optimizer = torch.optim.AdamW([*student.parameters(), *predictor.parameters()], lr=3e-3)
    for step in range(steps):
        ids = 4 * torch.randint(8, (32, 1)) + torch.randint(4, (32, 40))  # [B, T]
        lengths = torch.randint(24, 41, (32,))
        hidden = torch.stack([F.pad(hide_spans(n, 5), (0, 40 - n)) for n in lengths.tolist()])  # [B, T]
        terms = loss_terms(student, teacher, predictor, ids, torch.arange(40) < lengths[:, None], hidden)
        optimizer.zero_grad()
        sum(terms.values()).backward()
        optimizer.step()
        update_teacher(teacher, student, step / steps)
        if step % 10 == 0 or step == steps - 1:
            print(f"step {step:3d}  " + "  ".join(f"{name} {term.item():.3f}" for name, term in terms.items()))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
