"""Image patches predicted with a caption's help, on one page: I-JEPA whose predictor reads the words as well.

The vision encoder reads the visible patches alone. A predictor reads their latents and those of the caption's words,
and estimates the latents of the hidden patches; an EMA of the vision encoder, which reads the whole image, gives the
targets. VICReg keeps embeddings of images from collapsing. (The published VL-JEPA, Chen et al. 2025, predicts the
latent of a text instead.)
"""

import copy

import torch
import torch.nn.functional as F
from torch import nn

VARIANCE, COVARIANCE, MEAN = 25.0, 200.0, 0.75  # weights, beside 1 for the prediction


def transformer(dim, depth, heads):
    block = nn.TransformerEncoderLayer(dim, heads, 4 * dim, 0.0, F.gelu, batch_first=True, norm_first=True)
    return nn.TransformerEncoder(block, depth, nn.LayerNorm(dim), enable_nested_tensor=False)


def sincos(side, dim):
    """[side * side, dim]: sines and cosines of each patch's row, then of its column (MAE, He et al. 2022)."""
    rates = 10_000.0 ** (-4 * torch.arange(dim // 4) / dim)  # [dim / 4]
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    y, x = (axis.reshape(-1, 1) * rates for axis in (rows, columns))  # each [N, dim / 4]
    return torch.cat([y.sin(), y.cos(), x.sin(), x.cos()], 1)


class VisionEncoder(nn.Module):
    def __init__(self, side, patch, dim, depth, heads):
        super().__init__()
        self.patch, self.stem = patch, nn.Linear(3 * patch**2, dim)
        self.position = nn.Buffer(sincos(side, dim))
        self.trunk = transformer(dim, depth, heads)

    def forward(self, images, readable=None):  # [B, 3, H, W]; no patch reads one that is not readable [B, N] bool
        pixels = F.unfold(images, self.patch, stride=self.patch).transpose(1, 2)  # [B, N, 3 P P]
        hidden = None if readable is None else ~readable
        return self.trunk(self.stem(pixels) + self.position, src_key_padding_mask=hidden)  # [B, N, D]


class TextEncoder(nn.Module):
    def __init__(self, vocab, dim, depth, heads, max_len):
        super().__init__()
        self.token, self.position = nn.Embedding(vocab, dim), nn.Embedding(max_len, dim)
        self.trunk = transformer(dim, depth, heads)

    def forward(self, ids, real):  # ids [B, T], real [B, T] bool, False on padding
        x = self.token(ids) + self.position.weight[: ids.shape[1]]  # [B, T, E]
        return self.trunk(x, src_key_padding_mask=~real)  # [B, T, E]


class Predictor(nn.Module):  # narrow, with a mask token at each hidden position
    def __init__(self, dim, text_dim, width, depth, heads, patches, words):
        super().__init__()
        self.join = nn.Linear(text_dim, dim)  # words to the width of patches; its bias tells them apart
        self.enter, self.leave = nn.Linear(dim, width), nn.Linear(width, dim)
        self.position = nn.Embedding(patches + words, width)  # positions of words come behind those of patches
        self.mask_token = nn.Parameter(0.02 * torch.randn(width))
        self.trunk = transformer(width, depth, heads)

    def forward(self, context, words, visible, words_real, hidden):  # [B, N, D], [B, T, E], [B, N], [B, T], [B, N]
        seen = self.enter(torch.cat([context, self.join(words)], 1))  # [B, N + T, W]
        seen = seen + self.position.weight[: seen.shape[1]]
        queries = self.mask_token + self.position.weight[: context.shape[1]]  # [N, W]
        x = torch.cat([seen, queries.expand(len(seen), -1, -1)], 1)  # [B, N + T + N, W]
        x = self.trunk(x, src_key_padding_mask=~torch.cat([visible, words_real, hidden], 1))
        return self.leave(x[:, seen.shape[1] :])  # [B, N, D], of use where hidden


def hide_block(side):
    """[N] bool: a block of three quarters of the patches, at random."""
    aspect = 0.75 + 0.75 * torch.rand(()).item()  # height / width
    height = min(side, round(side * (0.75 * aspect) ** 0.5))
    width = min(side, round(0.75 * side**2 / height))
    top, left = (int(torch.randint(side - size + 1, ())) for size in (height, width))
    hidden = torch.zeros(side, side, dtype=torch.bool)
    hidden[top : top + height, left : left + width] = True
    return hidden.flatten()


def vicreg(z):
    """z [B, D]: each dimension should vary, and no two together. VICReg, Bardes et al. 2022."""
    covariance = torch.cov(z.T)  # [D, D], eq. 3
    variance = covariance.diagonal()  # [D]
    return {
        "variance": VARIANCE * F.relu(1 - (variance + 1e-4).sqrt()).mean(),  # eq. 1 and 2
        "covariance": COVARIANCE * (covariance - torch.diag(variance)).square().sum() / z.shape[1],  # eq. 4
        "mean": MEAN * z.mean(0).square().mean(),  # not in the paper: keeps embeddings off a cone
    }


def loss_terms(student, teacher, text_encoder, predictor, images, visible, hidden, ids, words_real):
    """images [B, 3, H, W]; visible, hidden [B, N] bool; captions: ids [B, T], words_real (no padding) [B, T] bool.

    The terms of the loss, which is their sum.
    """
    with torch.no_grad():  # the target encoder reads the whole image
        target = teacher(images)[hidden]  # [M, D], M hidden patches
        target = (target - target.mean(0)) / (target.var(0, correction=0) + 1e-6).sqrt()  # over the batch

    # No patch reads a hidden one in the vision encoder. (To leave them out before it gives the same and is cheaper.)
    context = student(images, visible)  # [B, N, D]
    words = text_encoder(ids, words_real)  # [B, T, E]
    predicted = predictor(context, words, visible, words_real, hidden)[hidden]  # [M, D]
    terms = {"prediction": (1 - F.cosine_similarity(predicted, target, dim=-1)).mean()}  # BYOL, eq. 2, halved

    embedding = (context * visible[..., None]).sum(1) / visible.sum(1, keepdim=True)  # [B, D], mean visible patch
    return terms | vicreg(embedding)


@torch.no_grad()
def update_teacher(teacher, student, done):
    """Part `done` of the run, in [0, 1]: the momentum rises, as in I-JEPA. BYOL, Grill et al. 2020, eq. 1."""
    momentum = 0.99 + (0.999 - 0.99) * done
    for slow, fast in zip(teacher.parameters(), student.parameters(), strict=True):
        slow.lerp_(fast, 1 - momentum)


def main(steps=60, side=6, patch=4):
    """Images whose left and right half have colours of their own, and captions of two words that name them."""
    torch.manual_seed(0)
    student, text_encoder = VisionEncoder(side, patch, 64, 1, 4), TextEncoder(8, 32, 1, 4, 2)
    predictor = Predictor(64, 32, 32, 1, 4, side**2, 2)
    teacher = copy.deepcopy(student).requires_grad_(False)
    learners = nn.ModuleList([student, text_encoder, predictor])
    optimizer = torch.optim.AdamW(learners.parameters(), lr=3e-3)
    colours = torch.tensor([[r, g, b] for r in (-1.0, 1.0) for g in (-1.0, 1.0) for b in (-1.0, 1.0)])  # [8, 3]
    for step in range(steps):
        ids = torch.randint(8, (32, 2))  # [B, T]
        halves = colours[ids].transpose(1, 2)[:, :, None]  # [B, 3, 1, 2]
        images = halves.repeat_interleave(side * patch, 2).repeat_interleave(side * patch // 2, 3)  # [B, 3, H, W]
        hidden = torch.stack([hide_block(side) for _ in images])  # [B, N]
        networks, words_real = (student, teacher, text_encoder, predictor), torch.ones_like(ids).bool()
        terms = loss_terms(*networks, images, ~hidden, hidden, ids, words_real)
        optimizer.zero_grad()
        sum(terms.values()).backward()
        optimizer.step()
        update_teacher(teacher, student, step / steps)
        if step % 10 == 0 or step == steps - 1:
            print(f"step {step:3d}  " + "  ".join(f"{name} {term.item():.3f}" for name, term in terms.items()))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
