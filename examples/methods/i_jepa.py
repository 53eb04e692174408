"""I-JEPA on one page: predict the latents of an image's hidden patches from its visible ones (Assran et al. 2023).

The context encoder reads the visible patches alone. A predictor, given the positions of the hidden ones, estimates
their latents; an EMA of the encoder, which reads the whole image, gives the targets (section 3 of the paper). Beside
the paper, VICReg keeps the latents from collapsing, and targets are normalised over the batch instead of each alone.
"""

import copy

import torch
import torch.nn.functional as F
from torch import nn

VARIANCE, COVARIANCE = 3.0, 0.6  # weights, beside 1 for the prediction


def transformer(dim, depth, heads):
    block = nn.TransformerEncoderLayer(dim, heads, 4 * dim, 0.0, F.gelu, batch_first=True, norm_first=True)
    return nn.TransformerEncoder(block, depth, nn.LayerNorm(dim), enable_nested_tensor=False)


def sincos(side, dim):
    """[side * side, dim]: sines and cosines of each patch's row, then of its column (MAE, He et al. 2022)."""
    rates = 10_000.0 ** (-4 * torch.arange(dim // 4) / dim)  # [dim / 4]
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    y, x = (axis.reshape(-1, 1) * rates for axis in (rows, columns))  # each [N, dim / 4]
    return torch.cat([y.sin(), y.cos(), x.sin(), x.cos()], 1)


class Encoder(nn.Module):
    def __init__(self, side, patch, dim, depth, heads):
        super().__init__()
        self.patch, self.stem = patch, nn.Linear(3 * patch**2, dim)
        self.position = nn.Buffer(sincos(side, dim))
        self.trunk = transformer(dim, depth, heads)

    def forward(self, images, readable=None):  # [B, 3, H, W]; no patch reads one that is not readable [B, N] bool
        pixels = F.unfold(images, self.patch, stride=self.patch).transpose(1, 2)  # [B, N, 3 P P]
        hidden = None if readable is None else ~readable
        return self.trunk(self.stem(pixels) + self.position, src_key_padding_mask=hidden)  # [B, N, D]


class Predictor(nn.Module):  # narrow, with a mask token at each hidden position
    def __init__(self, dim, width, depth, heads, patches):
        super().__init__()
        self.enter, self.leave = nn.Linear(dim, width), nn.Linear(width, dim)
        self.position, self.mask_token = nn.Embedding(patches, width), nn.Parameter(0.02 * torch.randn(width))
        self.trunk = transformer(width, depth, heads)

    def forward(self, context, visible, hidden):  # [B, N, D], [B, N] bool, [B, N] bool
        seen = self.enter(context) + self.position.weight  # [B, N, W]
        queries = (self.mask_token + self.position.weight).expand_as(seen)  # [B, N, W]
        x = self.trunk(torch.cat([seen, queries], 1), src_key_padding_mask=~torch.cat([visible, hidden], 1))
        return self.leave(x[:, context.shape[1] :])  # [B, N, D], of use where hidden


def block(side, area, aspect):
    """[side, side] bool: a block at random, its share of the grid and height / width drawn from these intervals."""
    area, aspect = (low + (high - low) * torch.rand(()).item() for low, high in (area, aspect))
    height, width = (min(side, round(side * root**0.5)) for root in (area * aspect, area / aspect))
    top, left = (int(torch.randint(side - size + 1, ())) for size in (height, width))
    inside = torch.zeros(side, side, dtype=torch.bool)
    inside[top : top + height, left : left + width] = True
    return inside


def multi_block(side):
    """visible, hidden [N] bool: four blocks are hidden, and the rest of a larger one is visible."""
    while True:
        hidden = torch.stack([block(side, (0.15, 0.2), (0.75, 1.5)) for _ in range(4)]).any(0)
        visible = block(side, (0.85, 1.0), (1.0, 1.0)) & ~hidden
        if visible.any():
            return visible.flatten(), hidden.flatten()


def vicreg(z):
    """z [V, D]: each dimension should vary, and no two together. VICReg, Bardes et al. 2022."""
    covariance = torch.cov(z.T)  # [D, D], eq. 3
    variance = covariance.diagonal()  # [D]
    return {
        "variance": VARIANCE * F.relu(1 - (variance + 1e-4).sqrt()).mean(),  # eq. 1 and 2
        "covariance": COVARIANCE * (covariance - torch.diag(variance)).square().sum() / z.shape[1],  # eq. 4
    }


def loss_terms(student, teacher, predictor, images, visible, hidden):
    """images [B, 3, H, W]; visible, hidden [B, N] bool -> the terms of the loss, which is their sum."""
    with torch.no_grad():  # the target encoder reads the whole image
        target = teacher(images)[hidden]  # [M, D], M hidden patches
        target = (target - target.mean(0)) / (target.var(0, correction=0) + 1e-6).sqrt()  # over the batch

    # No patch reads a hidden one in the context encoder. (To leave them out, as in the paper, is the same but cheaper.)
    context = student(images, visible)  # [B, N, D]
    predicted = predictor(context, visible, hidden)[hidden]  # [M, D]
    terms = {"prediction": F.smooth_l1_loss(predicted, target)}  # the paper's is the squared L2 distance
    return terms | vicreg(context[visible])  # of every visible patch


@torch.no_grad()
def update_teacher(teacher, student, done):
    """Part `done` of the run, in [0, 1]: the momentum rises linearly. BYOL, Grill et al. 2020, eq. 1."""
    momentum = 0.99 + (0.9995 - 0.99) * done
    for slow, fast in zip(teacher.parameters(), student.parameters(), strict=True):
        slow.lerp_(fast, 1 - momentum)


def main(steps=60, side=6, patch=4):
    """Images of one colour that fades into another, in a direction of its own each."""
    torch.manual_seed(0)
    student, predictor = Encoder(side, patch, 64, 1, 4), Predictor(64, 32, 1, 4, side**2)
    teacher = copy.deepcopy(student).requires_grad_(False)
    optimizer = torch.optim.AdamW([*student.parameters(), *predictor.parameters()], lr=3e-3)
    ramp = torch.linspace(-1, 1, side * patch)  # [H]
    for step in range(steps):
        base, down, across = torch.rand(3, 32, 3, 1, 1) * 2 - 1  # each [B, 3, 1, 1]
        images = (base + down * ramp[:, None] + across * ramp) / 3  # [B, 3, H, W]
        visible, hidden = (torch.stack(masks) for masks in zip(*[multi_block(side) for _ in images], strict=True))
        terms = loss_terms(student, teacher, predictor, images, visible, hidden)
        optimizer.zero_grad()
        sum(terms.values()).backward()
        optimizer.step()
        update_teacher(teacher, student, step / steps)
        if step % 10 == 0 or step == steps - 1:
            print(f"step {step:3d}  " + "  ".join(f"{name} {term.item():.3f}" for name, term in terms.items()))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
