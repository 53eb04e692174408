"""nanoJEPA on one page: a decoder predicts the latent of an answer from the question, without having seen the answer.

A row is question, [SEP], answer, [PRED]. One pass reads it under a mask that keeps three parts apart: the question,
the answer, and [PRED], which reads the question alone. The state of [PRED] is the prediction; the target is an EMA
teacher's state of the answer's last token. Next-token prediction within question and answer keeps it a language model
(LLM-JEPA, Huang et al. 2025); VICReg keeps the answers' latents from falling onto one point.
"""

import copy

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pad_sequence

PREDICTION, VARIANCE, COVARIANCE = 3.0, 2.0, 0.08  # weights, beside 1 for the tokens


class Decoder(nn.Module):
    def __init__(self, vocab, dim, depth, heads, max_len):
        super().__init__()
        self.token, self.position, self.heads = nn.Embedding(vocab, dim), nn.Embedding(max_len, dim), heads
        block = nn.TransformerEncoderLayer(dim, heads, 4 * dim, 0.0, F.gelu, batch_first=True, norm_first=True)
        self.trunk = nn.TransformerEncoder(block, depth, nn.LayerNorm(dim), enable_nested_tensor=False)
        nn.init.normal_(self.token.weight, std=0.02)  # it is the output head as well
        nn.init.normal_(self.position.weight, std=0.02)

    def forward(self, ids, at, may_read):  # ids, positions [B, T], may_read [B, T, T] bool: by query and key
        x = self.token(ids) + self.position(at)  # [B, T, D]
        return self.trunk(x, mask=~may_read.repeat_interleave(self.heads, 0))  # [B, T, D]


class Targets(nn.Module):
    """Latents less their running mean, by their running deviation: only what tells answers apart is predicted.

    As DINO centres its teacher (Caron et al. 2021, eq. 4).
    """

    def __init__(self, dim, momentum=0.9):
        super().__init__()
        self.momentum, self.mean, self.variance = momentum, torch.zeros(dim), None

    def forward(self, latents):  # [B, D] -> [B, D]
        first, weight = self.variance is None, 1 - self.momentum  # the first batch is taken as it is
        mean, variance = latents.mean(0), latents.var(0, correction=0)  # [D]
        self.mean = mean if first else self.mean.lerp(mean, weight)
        self.variance = variance if first else self.variance.lerp(variance, weight)
        return (latents - self.mean) / (self.variance + 1e-6).sqrt()


def layout(question, answer, pred):
    """Each [B, T] bool -> positions [B, T], and which token may read which [B, T, T].

    The answer starts at position 0, [PRED] follows the question: as if the three were read apart.
    """
    at = (question.cumsum(1) - 1) * question + (answer.cumsum(1) - 1) * answer + question.sum(1, keepdim=True) * pred
    itself = torch.eye(at.shape[1], dtype=torch.bool)  # [T, T]; padding reads itself
    earlier = torch.ones_like(itself).tril()  # [T, T]
    within = (question[:, :, None] & question[:, None]) | (answer[:, :, None] & answer[:, None])  # [B, T, T]
    return at, itself | (within & earlier) | (pred[:, :, None] & question[:, None])


def vicreg(z):
    """z [B, D]: each dimension should vary, and no two together. VICReg, Bardes et al. 2022."""
    covariance = torch.cov(z.T)  # [D, D], eq. 3
    variance = covariance.diagonal()  # [D]
    return {
        "variance": VARIANCE * F.relu(1 - (variance + 1e-4).sqrt()).mean(),  # eq. 1 and 2
        "covariance": COVARIANCE * (covariance - torch.diag(variance)).square().sum() / z.shape[1],  # eq. 4
    }


def loss_terms(decoder, teacher, targets, ids, question, answer):
    """ids [B, T]; question ([SEP] included), answer [B, T] bool -> the terms of the loss, which is their sum."""
    ends = F.pad(answer, (0, 1))[:, 1:] < answer  # [B, T], the last token of an answer
    pred = F.pad(ends, (1, -1))  # [B, T], behind it
    states = decoder(ids, *layout(question, answer, pred))  # [B, T, D], one pass

    # Every token that one of its own part precedes, from the state of that one; the head is the token table.
    follows = (question[:, :-1] & question[:, 1:]) | (answer[:, :-1] & answer[:, 1:])  # [B, T - 1]
    logits = states[:, :-1][follows] @ decoder.token.weight.T  # [tokens, V]
    terms = {"tokens": F.cross_entropy(logits, ids[:, 1:][follows])}

    # The target: answers alone, each read by the teacher from position 0.
    alone = pad_sequence(ids[answer].split(answer.sum(1).tolist()), batch_first=True)  # [B, A]
    real = torch.arange(alone.shape[1]) < answer.sum(1, keepdim=True)  # [B, A]
    none = torch.zeros_like(real)
    with torch.no_grad():
        last = teacher(alone, *layout(none, real, none))[real][answer.sum(1).cumsum(0) - 1]  # [B, D]
        target = targets(last)
    cosine = F.cosine_similarity(states[pred], target, dim=-1)  # [B]
    terms["prediction"] = PREDICTION * (1 - cosine).mean()  # BYOL, Grill et al. 2020, eq. 2, halved
    return terms | vicreg(states[ends])  # answers' latents, by the decoder that learns


@torch.no_grad()
def update_teacher(teacher, student, done):
    """Part `done` of the run, in [0, 1]: the momentum rises to 1, as in I-JEPA. BYOL, eq. 1."""
    momentum = 0.99 + (1.0 - 0.99) * done
    for slow, fast in zip(teacher.parameters(), student.parameters(), strict=True):
        slow.lerp_(fast, 1 - momentum)


def main(steps=150):
    """Sums of two digits: a + b [SEP] c [PRED], with one or two digits for c."""
    torch.manual_seed(0)
    plus, sep, pred, pad = 10, 11, 12, 13
    decoder, targets = Decoder(14, 64, 1, 4, 8), Targets(64)
    teacher = copy.deepcopy(decoder).requires_grad_(False)
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=3e-3)
    for step in range(steps):
        pairs = torch.randint(10, (64, 2)).tolist()
        sums = [[int(digit) for digit in str(a + b)] for a, b in pairs]
        rows = [[a, plus, b, sep, *c, pred] for (a, b), c in zip(pairs, sums, strict=True)]
        ids = torch.tensor([row + [pad] * (7 - len(row)) for row in rows])  # [B, T]
        question = (torch.arange(7) < 4).expand_as(ids)  # [B, T]
        answer = (torch.arange(7) >= 4) & (ids < 10)  # [B, T]
        terms = loss_terms(decoder, teacher, targets, ids, question, answer)
        optimizer.zero_grad()
        sum(terms.values()).backward()
        optimizer.step()
        update_teacher(teacher, decoder, step / steps)
        if step % 25 == 0 or step == steps - 1:
            print(f"step {step:3d}  " + "  ".join(f"{name} {term.item():.3f}" for name, term in terms.items()))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
