"""Each peer as a function of q, k, v and ``causal``, on one rank's tokens.

An adapter calls the peer as its own users do and imports it only when it is called. Where a peer
asks for flash-attn, which needs a GPU, it gets the CPU's kernel under that name; the gradients'
way into the peer's buffers is then one copy more than with flash-attn. flash-attn knows no float32:
there those peers do what their authors never meant them to.
"""

import importlib
import sys
import types
from collections.abc import Callable
from importlib import util
from typing import NamedTuple

import attention
import torch
import torch.distributed as dist
import torch.nn.functional as F
from attention import CHANNEL, HEADS


class Peer(NamedTuple):
    """One implementation: what it competes with, how it takes tokens, how it is made."""

    kind: str  # "ulysses", "ring" or "balanced" (a ring with equal causal work)
    make: Callable  # p -> attend(q, k, v, causal)
    heads_first: bool = False  # [B, H, S/p, C] rather than [B, S/p, H, C]
    order: str = "contiguous"  # which tokens a rank holds


def sdpa(q, k, v, causal=False, **_):
    """Torch's attention on ``[B, S, H, C]``."""
    q, k, v = (t.transpose(1, 2) for t in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, is_causal=causal).transpose(1, 2)


def flash_forward(
    q, k, v, dropout_p=0.0, softmax_scale=None, causal=False, window_size_left=-1,
    window_size_right=-1, softcap=0.0, alibi_slopes=None, return_softmax=False,
):  # fmt: skip
    """flash-attn's inner forward on ``[B, S, H, C]``: output and log-sum-exp."""
    q, k, v = (t.transpose(1, 2) for t in (q, k, v))
    out, lse = attention.kernel()(q, k, v, 0.0, causal, scale=softmax_scale)
    return out.transpose(1, 2), lse, None, None


def flash_backward(
    dout, q, k, v, out, softmax_lse, dq, dk, dv, dropout_p=0.0, softmax_scale=None, causal=False,
    window_size_left=-1, window_size_right=-1, softcap=0.0, alibi_slopes=None,
    deterministic=False, rng_state=None,
):  # fmt: skip
    """flash-attn's inner backward, which fills the buffers that it is given."""
    dout, q, k, v, out = (t.transpose(1, 2) for t in (dout, q, k, v, out))
    parts = attention.kernel("_backward")(
        dout, q, k, v, out, softmax_lse, 0.0, causal, scale=softmax_scale
    )
    for buffer, part in zip((dq, dk, dv), parts, strict=True):
        buffer.copy_(part.transpose(1, 2))


def stub(name, **members):
    """A module that stands in for one that is not here."""
    module = types.ModuleType(name)
    vars(module).update(members)
    return {name: module}


def on_flash(name):
    """Import a module that asks for flash-attn, which is here only as long as that takes."""
    flash = stub("flash_attn", __version__="2.8.3", flash_attn_func=sdpa) | stub(
        "flash_attn.flash_attn_interface",
        _flash_attn_forward=flash_forward,
        _flash_attn_backward=flash_backward,
        _flash_attn_varlen_forward=None,  # imported, but not called here
        _flash_attn_varlen_backward=None,
    )
    sys.modules |= flash
    try:
        return importlib.import_module(name)
    finally:
        for loaded in flash:
            del sys.modules[loaded]


def deepspeed(p):
    # It would compile an all-reduce over shared memory at start; attention has no all-reduce.
    importlib.import_module("deepspeed.comm.torch").build_shm_op = lambda: None
    importlib.import_module("deepspeed.comm").init_distributed("gloo")


def distributed_attention(p):
    deepspeed(p)
    layer = importlib.import_module("deepspeed.sequence.layer")
    module = layer.DistributedAttention(sdpa, dist.group.WORLD, scatter_idx=2, gather_idx=1)
    return lambda q, k, v, causal: module(q, k, v, 0, None, causal)


def alst(p):
    deepspeed(p)
    library = importlib.import_module("deepspeed.runtime.sequence_parallel.ulysses_sp")

    def attend(module, q, k, v, mask, causal, position_ids):
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal).transpose(1, 2), None

    ulysses = library.UlyssesSPAttentionHF(
        attend, 1, HEADS, CHANNEL, HEADS, 1, dist.group.WORLD, seq_length_is_variable=True
    )
    layer = torch.nn.Module()

    def run(q, k, v, causal):
        places = torch.arange(q.shape[2]).unsqueeze(0) + dist.get_rank() * q.shape[2]
        out, _ = ulysses(layer, q, k, v, None, causal=causal, position_ids=places)
        return out.unflatten(-1, (HEADS, CHANNEL)).transpose(1, 2)

    return run


def yunchang_ulysses(p):
    module = on_flash("yunchang").UlyssesAttention(dist.group.WORLD)
    return lambda q, k, v, causal: module(q, k, v, causal=causal)


def yunchang_ring(name):
    def make(p):
        attend = getattr(on_flash("yunchang.ring"), f"{name}_flash_attn_func")
        return lambda q, k, v, causal: attend(q, k, v, causal=causal)

    return make


def ring_flash_attn(name):
    def make(p):
        # Its adapters are for an older transformers than ours; its attention does without.
        unused = {"substitute_hf_flash_attn": None, "update_ring_flash_attn_params": None}
        sys.modules |= stub("ring_flash_attn.adapters", **unused)
        attend = getattr(on_flash("ring_flash_attn"), f"{name}_flash_attn_func")
        return lambda q, k, v, causal: attend(q, k, v, causal=causal)

    return make


def para_attn(name):
    def make(p):
        library = importlib.import_module("para_attn.para_attn_interface")
        attend = getattr(library, f"{name}_attn_func")
        return lambda *qkv: attend(*qkv[:3], is_causal=qkv[3], mesh=dist.group.WORLD)

    return make


def diffusers(degree):
    def make(p):
        dispatch = importlib.import_module("diffusers.models.attention_dispatch")
        parallel = importlib.import_module("diffusers.models._modeling_parallel")
        config = parallel.ContextParallelConfig(**{degree: p})
        mesh = dist.init_device_mesh("cpu", config.mesh_shape, mesh_dim_names=config.mesh_dim_names)
        config.setup(dist.get_rank(), p, torch.device("cpu"), mesh)
        config = parallel.ParallelConfig(context_parallel_config=config)
        return lambda q, k, v, causal: dispatch.dispatch_attention_fn(
            q, k, v, is_causal=causal, backend="native", parallel_config=config
        )

    return make


def ringmaster_ulysses(p):
    library = importlib.import_module("ringmaster")
    config = library.RingmasterConfig(size=p, backend=library.Backend.ULYSSES)
    library.setup(config, num_kv_heads=HEADS, device_type="cpu", inner_attn="sdpa")
    strategy = importlib.import_module("ringmaster.strategies.ulysses")
    attend, layer = strategy.make_ulysses_attention("sdpa"), torch.nn.Module()
    return lambda q, k, v, causal: attend(layer, q, k, v, None, is_causal=causal)[0].transpose(1, 2)


def ringmaster_ring(p):
    ring = importlib.import_module("ringmaster.ring.p2p_attn").ring_p2p_attention
    return lambda q, k, v, causal: ring(
        q, k, v, group=dist.group.WORLD, causal=causal, scaling=None
    ).transpose(1, 2)


def ringmaster_zigzag(p):
    ring = importlib.import_module("ringmaster.ring.zigzag").zigzag_ring_attention
    return lambda q, k, v, causal: ring(q, k, v, group=dist.group.WORLD, scaling=None).transpose(
        1, 2
    )


def ring_attention_pytorch(striped):
    def make(p):
        attend = importlib.import_module("ring_attention_pytorch").ring_flash_attn
        return lambda q, k, v, causal: attend(
            q, k, v, causal=causal, bucket_size=q.shape[1], ring_reduce_col=True,
            striped_ring_attn=striped, ring_size=p,
        )  # fmt: skip

    return make


def videosys(checkout):
    """Its switch around one attention; from a checkout, since it is in no package registry."""

    def make(p):
        path = f"{checkout}/videosys/core/distributed/comm.py"
        spec = util.spec_from_file_location("videosys_comm", path)
        library = util.module_from_spec(spec)
        spec.loader.exec_module(library)
        switch = library.all_to_all_comm

        def attend(q, k, v, causal):
            q, k, v = (switch(t, dist.group.WORLD, 2, 1) for t in (q, k, v))
            return switch(sdpa(q, k, v, causal), dist.group.WORLD, 1, 2)

        return attend

    return make


def by_hand(name):
    return lambda p: attention.PEERS[name]


def peers(causal, checkout=None):
    """Every peer under its name; zigzag and stripes mean nothing without a causal mask."""
    balanced = "balanced" if causal else "ring"
    template = "zigzag" if causal else "contiguous"
    found = {
        "plain all-to-all": Peer("ulysses", by_hand("plain all-to-all"), True),
        "plain all-to-all, fused": Peer("ulysses", by_hand("plain all-to-all, fused"), True),
        "DeepSpeed DistributedAttention": Peer("ulysses", distributed_attention),
        "DeepSpeed ALST": Peer("ulysses", alst, True),
        "yunchang Ulysses": Peer("ulysses", yunchang_ulysses),
        "para-attn Ulysses": Peer("ulysses", para_attn("ulysses"), True),
        "diffusers Ulysses": Peer("ulysses", diffusers("ulysses_degree")),
        "ringmaster Ulysses": Peer("ulysses", ringmaster_ulysses, True),
        "plain ring": Peer("ring", by_hand("plain ring"), True),
        "ring-flash-attn ring": Peer("ring", ring_flash_attn("ring")),
        "yunchang ring": Peer("ring", yunchang_ring("ring")),
        "para-attn ring": Peer("ring", para_attn("ring"), True),
        "diffusers ring": Peer("ring", diffusers("ring_degree")),
        "ringmaster ring": Peer("ring", ringmaster_ring, True),
        "ring-attention-pytorch ring": Peer("ring", ring_attention_pytorch(False)),
        "torch's ring template": Peer(balanced, by_hand("torch's ring template"), True, template),
    }
    if causal:
        found |= {
            "ring-flash-attn zigzag": Peer(
                balanced, ring_flash_attn("zigzag_ring"), False, "zigzag"
            ),
            "ring-flash-attn stripe": Peer(balanced, ring_flash_attn("stripe"), False, "striped"),
            "yunchang zigzag": Peer(balanced, yunchang_ring("zigzag_ring"), False, "zigzag"),
            "ringmaster zigzag": Peer(balanced, ringmaster_zigzag, True, "zigzag"),
            "ring-attention-pytorch striped": Peer(
                balanced, ring_attention_pytorch(True), False, "striped"
            ),
        }
    if checkout:
        found["VideoSys switch"] = Peer("ulysses", videosys(checkout))
    return found
