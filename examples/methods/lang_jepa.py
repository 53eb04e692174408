"""LANG-JEPA on one page: predict the latents of a document's hidden sentences from its visible ones.

The student reads the visible sentences alone. A predictor gets one latent for each and the numbers of the hidden ones;
an EMA teacher, which reads every sentence alone, gives the targets. VICReg keeps embeddings from collapsing, and late
in a run each prediction has to be nearer to its own sentence than to the others of its document (InfoNCE).
"""

import copy

import torch
import torch.nn.functional as F
from torch import nn

VARIANCE, COVARIANCE, MEAN, INVARIANCE = 10.0, 35.0, 2.0, 6.0  # weights, beside 1 for the prediction
CONTRAST, CONTRAST_START, TEMPERATURE = 0.3, 0.4, 0.1  # weight at the end of the run, part of the run without it


def transformer(dim, depth, heads):
    block = nn.TransformerEncoderLayer(dim, heads, 4 * dim, 0.0, F.gelu, batch_first=True, norm_first=True)
    return nn.TransformerEncoder(block, depth, nn.LayerNorm(dim), enable_nested_tensor=False)


class Encoder(nn.Module):
    def __init__(self, vocab, dim, depth, heads, max_len):
        super().__init__()
        self.token, self.position = nn.Embedding(vocab, dim), nn.Embedding(max_len, dim)
        self.trunk = transformer(dim, depth, heads)

    def forward(self, ids, at, readable):  # ids, positions [B, T]; no token reads one that is not readable
        below = self.token(ids) + self.position(at)  # [B, T, D]
        for block in self.trunk.layers[:-1]:
            below = block(below, src_key_padding_mask=~readable)
        top = self.trunk.norm(self.trunk.layers[-1](below, src_key_padding_mask=~readable))
        return below, top  # the last two layers, each [B, T, D]


class Predictor(nn.Module):  # narrow, with a mask token for each hidden sentence: I-JEPA, Assran et al. 2023
    def __init__(self, dim, width, depth, heads, max_len):
        super().__init__()
        self.enter, self.leave = nn.Linear(2 * dim, width), nn.Linear(width, dim)
        self.position, self.mask_token = nn.Embedding(max_len, width), nn.Parameter(0.02 * torch.randn(width))
        self.trunk = transformer(width, depth, heads)

    def forward(self, context, visible, hidden):  # [B, S, 2D], [B, S] bool, [B, S] bool
        seen = self.enter(context) + self.position.weight[: context.shape[1]]  # [B, S, W]
        queries = (self.mask_token + self.position.weight[: context.shape[1]]).expand_as(seen)  # [B, S, W]
        x = self.trunk(torch.cat([seen, queries], 1), src_key_padding_mask=~torch.cat([visible, hidden], 1))
        return self.leave(x[:, context.shape[1] :])  # [B, S, D], of use where hidden


def hide_sentences(count):
    """[count] bool: half of the sentences of a document, at random."""
    return torch.randperm(count) < max(1, round(count / 2))


def mean(x, real):
    """x [..., T, D], real [..., T] bool -> [..., D], the mean of the real tokens, or 0."""
    return (x * real[..., None]).sum(-2) / real.sum(-1, keepdim=True).clamp(min=1)


def vicreg(z):
    """z [B, D]: each dimension should vary, and no two together. VICReg, Bardes et al. 2022."""
    covariance = torch.cov(z.T)  # [D, D], eq. 3
    variance = covariance.diagonal()  # [D]
    return {
        "variance": VARIANCE * F.relu(1 - (variance + 1e-4).sqrt()).mean(),  # eq. 1 and 2
        "covariance": COVARIANCE * (covariance - torch.diag(variance)).square().sum() / z.shape[1],  # eq. 4
        "mean": MEAN * z.mean(0).square().mean(),  # not in the paper: keeps embeddings off a cone
    }


def loss_terms(student, teacher, predictor, ids, real, hidden, done):
    """Documents of up to S sentences of up to L tokens: ids [B, S, L], real (no padding) [B, S, L] bool, hidden [B, S].

    `done` in [0, 1] is the part of the run that is over -> the terms of the loss, which is their sum.
    """
    sentence = real.any(2)  # [B, S]
    visible = real & ~hidden[..., None]  # [B, S, L]
    at = (real.flatten(1).cumsum(1) - 1).clamp(min=0)  # [B, S L], positions in the document
    alone = torch.arange(real.shape[2]).expand_as(ids)  # [B, S, L], positions in the sentence

    # To the student, hidden sentences are padding: nothing reads them. (To leave them out gives the same, cheaper.)
    below, top = student(ids.flatten(1), at, visible.flatten(1))  # each [B, S L, D]
    both = torch.cat([top, F.layer_norm(below, below.shape[-1:])], -1).unflatten(1, real.shape[1:])  # [B, S, L, 2D]
    predicted = predictor(mean(both, visible), sentence & ~hidden, hidden)[hidden]  # [M, D], M hidden sentences

    # The teacher reads each sentence alone. Targets are of the layer below the top: there, sentences differ more.
    contrast = CONTRAST * max(0.0, done - CONTRAST_START) / (1 - CONTRAST_START)
    read = sentence if contrast else hidden  # [B, S] bool, whose targets are needed
    with torch.no_grad():
        target, _ = teacher(ids[read], alone[read], real[read])  # [targets, L, D]
        target = mean(target, real[read])  # [targets, D]
        target = (target - target.mean(0)) / (target.var(0, correction=0) + 1e-6).sqrt()  # over the batch
    terms = {"prediction": F.smooth_l1_loss(predicted, target[hidden[read]])}

    if contrast:  # van den Oord et al. 2018, eq. 4; the candidates are the sentences of the same document
        similarity = F.normalize(predicted, dim=-1) @ F.normalize(target, dim=-1).T  # [M, targets], cosines
        row = sentence.nonzero()[:, 0]  # [targets], the document of each
        similarity = similarity.masked_fill(row[hidden[read]][:, None] != row, -torch.inf)
        answer = hidden[read].nonzero()[:, 0]  # [M]
        terms["contrast"] = contrast * F.cross_entropy(similarity / TEMPERATURE, answer)

    # Two views of a document, its visible and its hidden part: both kept from collapsing, and pulled together.
    first = mean(top, visible.flatten(1))  # [B, D]
    latents = torch.zeros_like(both[..., : top.shape[2]])  # [B, S, L, D]
    latents[hidden] = student(ids[hidden], alone[hidden], real[hidden])[1]  # each hidden sentence read alone
    second = mean(latents.flatten(1, 2), (real & hidden[..., None]).flatten(1))  # [B, D]
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
    """Documents of 4 to 6 sentences of 5 words that go through eight subjects in turn, each with four words."""
    torch.manual_seed(0)
    student, predictor = Encoder(32, 64, 1, 4, 30), Predictor(64, 32, 1, 4, 6)
    teacher = copy.deepcopy(student).requires_grad_(False)
    optimizer = torch.optim.AdamW([*student.parameters(), *predictor.parameters()], lr=3e-3)
    for step in range(steps):
        subject = (torch.randint(8, (32, 1)) + torch.arange(6)) % 8  # [B, S]
        ids = 4 * subject[..., None] + torch.randint(4, (32, 6, 5))  # [B, S, L]
        counts = torch.randint(4, 7, (32,))  # sentences of each document
        real = (torch.arange(6) < counts[:, None])[..., None].expand_as(ids)  # [B, S, L]
        hidden = torch.stack([F.pad(hide_sentences(n), (0, 6 - n)) for n in counts.tolist()])  # [B, S]
        terms = loss_terms(student, teacher, predictor, ids, real, hidden, step / steps)
        optimizer.zero_grad()
        sum(terms.values()).backward()
        optimizer.step()
        update_teacher(teacher, student, step / steps)
        if step % 10 == 0 or step == steps - 1:
            print(f"step {step:3d}  " + "  ".join(f"{name} {term.item():.3f}" for name, term in terms.items()))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
