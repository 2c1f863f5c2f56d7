"""An independent one-device transformer: torch.nn modules only, nothing of the library's."""

import itertools

import torch
import torch.nn.functional as F
from torch import nn


class Block(nn.Module):
    """Attention along the axes of one stage, or an MLP, pre-norm, with a residual."""

    def __init__(self, width, heads, ratio, axes, kv_heads=None, seen=None):
        super().__init__()
        self.heads, self.kv_heads, self.axes, self.seen = heads, kv_heads, axes, seen
        self.turned, self.valid = False, {}
        self.norm = nn.LayerNorm(width)
        if axes is None:
            self.up, self.down = nn.Linear(width, ratio * width), nn.Linear(ratio * width, width)
        else:
            narrow = width // heads * kv_heads
            self.query, self.output = nn.Linear(width, width), nn.Linear(width, width)
            self.key, self.value = nn.Linear(width, narrow), nn.Linear(width, narrow)

    def forward(self, x):
        h = self.norm(x)
        if self.axes is None:
            return x + self.down(nn.functional.gelu(self.up(h)))
        last = x.dim() - 1
        batch = [i for i in range(last) if i not in self.axes]

        def split(t, heads):  # [batch..., seq..., width] -> [n, heads, s, channel]
            t = t.permute(*batch, *self.axes, last)
            sizes = t.shape
            t = t.reshape(sizes[: len(batch)].numel(), sizes[len(batch) : -1].numel(), heads, -1)
            return t.transpose(1, 2), sizes

        q, sizes = split(self.query(h), self.heads)
        k, v = (split(f(h), self.kv_heads)[0] for f in (self.key, self.value))
        if self.turned:
            places = torch.cartesian_prod(*(torch.arange(x.shape[a]) for a in self.axes))
            q, k = (rotate(t, places.view(q.shape[2], -1)) for t in (q, k))
        k, v = (torch.repeat_interleave(t, self.heads // self.kv_heads, 1) for t in (k, v))
        mask = self.mask(q.shape[2])
        if self.valid:
            mask = self.without_padding(mask, x.shape).repeat_interleave(len(q) // len(x), 0)
        out = F.scaled_dot_product_attention(q, k, v, mask)
        out = out.transpose(1, 2).reshape(sizes)
        order = [*batch, *self.axes, last]
        return x + self.output(out.permute([order.index(i) for i in range(last + 1)]))

    def mask(self, length):
        """True where token i may see token j, written out pair by pair."""
        causal, window = self.seen
        return torch.tensor(
            [
                [(j <= i or not causal) and (window is None or abs(i - j) < window)
                 for j in range(length)]
                for i in range(length)
            ]
        )  # fmt: skip

    def without_padding(self, mask, shape):
        """[samples, 1, s, s], written out key by key; one that sees none sees itself."""
        masks = []
        for sample in range(shape[0]):
            mine = mask.clone()
            for j, key in enumerate(itertools.product(*(range(shape[a]) for a in self.axes))):
                ends = [self.valid[a][sample] if a in self.valid else shape[a] for a in self.axes]
                if any(place >= end for place, end in zip(key, ends, strict=True)):
                    mine[:, j] = False
            for i in range(len(mine)):
                mine[i, i] |= not mine[i].any()
            masks.append(mine[None])
        return torch.stack(masks)


class Cross(nn.Module):
    """Every token attends to the whole text, pre-norm, with a residual."""

    def __init__(self, width, heads, kv_heads):
        super().__init__()
        self.heads, self.kv_heads, self.lengths = heads, kv_heads, None
        narrow = width // heads * kv_heads
        self.norm = nn.LayerNorm(width)
        self.query, self.output = nn.Linear(width, width), nn.Linear(width, width)
        self.key, self.value = nn.Linear(width, narrow), nn.Linear(width, narrow)

    def forward(self, x, text):
        q = self.query(self.norm(x)).flatten(1, -2).unflatten(-1, (self.heads, -1))
        k, v = (f(text).unflatten(-1, (self.kv_heads, -1)) for f in (self.key, self.value))
        k, v = (torch.repeat_interleave(t, self.heads // self.kv_heads, 2) for t in (k, v))
        scores = torch.einsum("bshc,blhc->bhsl", q, k) / q.shape[-1] ** 0.5
        for sample, length in enumerate(self.lengths or ()):
            scores[sample, :, :, length:] = -torch.inf
        out = torch.einsum("bhsl,blhc->bshc", scores.softmax(-1), v)
        return x + self.output(out.flatten(2).reshape(x.shape))


def rotate(t, places):
    """RoPE by complex numbers: a head's channels are shared out among the dims of the stage."""
    out = []
    for chunk, place in zip(t.chunk(places.shape[1], -1), places.unbind(1), strict=True):
        half = chunk.shape[-1] // 2
        speeds = torch.tensor([10_000 ** (-i / half) for i in range(half)], dtype=torch.float64)
        angle = torch.outer(place.double(), speeds)
        unit = torch.polar(torch.ones_like(angle), angle)
        z = torch.complex(chunk[..., :half], chunk[..., half:]) * unit.to(
            torch.complex(chunk, chunk).dtype
        )
        out += [z.real, z.imag]
    return torch.cat(out, -1)


def build(spec):
    """The model that ``spec`` describes, and the library's name of each of its weights."""
    axis = {name: i + 1 for i, name in enumerate(spec.dims)}
    blocks, names = [], []
    for layer in range(spec.num_layers):
        mlps = 0
        for i, stage in enumerate(spec.stages):
            axes = [axis[d] for d in stage]
            seen = (stage.causal, stage.window)
            heads = spec.num_kv_heads or spec.num_heads
            blocks.append(Block(spec.d_model, spec.num_heads, spec.mlp_ratio, axes, heads, seen))
            blocks[-1].turned = spec.positions == "rope"
            blocks[-1].valid = {axis[d]: ends for d, ends in spec.valid.items() if d in axis}
            names.append(f"layers.{layer}.attention.{i}")
            if spec.context_length:
                blocks.append(Cross(spec.d_model, spec.num_heads, heads))
                blocks[-1].lengths = spec.valid.get("context")
                names.append(f"layers.{layer}.cross.{i}")
            if spec.mlp_per == "stage" or i == len(spec.stages) - 1:
                blocks.append(Block(spec.d_model, spec.num_heads, spec.mlp_ratio, None))
                names.append(f"layers.{layer}.mlp.{mlps}")
                mlps += 1
    return nn.ModuleList(blocks), names


def step(spec, weights, x, text=None):
    """Output, loss and all gradients of one step from given weights and input."""
    blocks, names = build(spec)
    blocks = blocks.to(x.dtype)
    table = dict(zip(names, blocks, strict=True))
    with torch.no_grad():
        for name, block in table.items():
            for part, parameter in block.named_parameters():
                parameter.copy_(weights[f"{name}.{part}"])
    y = x = x.clone().requires_grad_()
    tables = {}
    if spec.positions == "learned":
        for i, dim in enumerate(spec.dims):
            places = tables[f"positions.{dim}"] = weights[f"positions.{dim}"].clone()
            shape = [1] * x.dim()
            shape[i + 1], shape[-1] = places.shape
            y = y + places.requires_grad_().reshape(shape)
    for block in blocks:
        y = block(y, text) if isinstance(block, Cross) else block(y)
    real = torch.ones_like(y)
    for i, dim in enumerate(spec.dims):
        for sample, end in enumerate(spec.valid.get(dim, ())):
            real[sample].narrow(i, end, x.shape[i + 1] - end).zero_()
    y = y * real
    loss = y.square().sum() / real.sum()
    loss.backward()
    gradients = {"input": x.grad} | {name: t.grad for name, t in tables.items()}
    for name, block in table.items():
        gradients |= {f"{name}.{part}": w.grad for part, w in block.named_parameters()}
    return y.detach(), loss.item(), gradients
