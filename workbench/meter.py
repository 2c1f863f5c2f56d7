"""Count flops and the bytes of live tensors while a step runs, on real or meta tensors."""

import weakref
from collections.abc import Iterable

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import flop_registry


def _stored(tensor: torch.Tensor) -> torch.Tensor:
    """What a rank holds: of a tensor that is cut over the ranks its own part."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def _is_meta(x) -> bool:
    return isinstance(x, torch.Tensor) and x.is_meta


def _norm(x, shape, *_):
    rows = (*x.shape[: x.dim() - len(shape)], *(1 for _ in shape))
    kept = torch.promote_types(x.dtype, torch.float32)
    return _like(x), _empty(x, rows, kept), _empty(x, rows, kept)


def _norm_backward(grad, x, shape, mean, rstd, weight, bias, mask):
    made = zip((x, weight, bias), mask, strict=True)
    return tuple(_like(t) if wanted else None for t, wanted in made)


def _like(x):
    return _empty(x, x.shape)


def _empty(x, shape, dtype=None):
    # A third of the time of `new_empty`, which goes through the mode's Python, too.
    return torch.empty(shape, dtype=dtype or x.dtype, device=x.device)


def _added(a, b, **more):
    alike = isinstance(b, torch.Tensor) and (a.shape, a.dtype) == (b.shape, b.dtype)
    if alike and a.is_contiguous() and b.is_contiguous():
        return _like(a)
    return torch.ops.aten.add.Tensor(a, b, **more)


def _summed(x, dims, keepdim=False, **more):
    if more or not dims or not x.is_contiguous():
        return torch.ops.aten.sum.dim_IntList(x, dims, keepdim, **more)
    gone = {dim % x.dim() for dim in dims}
    sizes = (1 if i in gone else n for i, n in enumerate(x.shape) if keepdim or i not in gone)
    return _empty(x, tuple(sizes))


#: What these ops return for meta tensors. torch goes through their arithmetic in Python to learn
#: the shapes of a few tensors, which took most of a faked step's time.
_ON_META = {
    torch.ops.aten.native_layer_norm.default: _norm,
    torch.ops.aten.native_layer_norm_backward.default: _norm_backward,
    torch.ops.aten.gelu.default: lambda x, **_: torch.empty_like(x),
    torch.ops.aten.gelu_backward.default: lambda grad, x, **_: torch.empty_like(grad),
    torch.ops.aten.addmm.default: lambda bias, a, b: _empty(a, (a.shape[0], b.shape[1])),
    torch.ops.aten.mm.default: lambda a, b: _empty(a, (a.shape[0], b.shape[1])),
    torch.ops.aten.add.Tensor: _added,
    torch.ops.aten.sum.dim_IntList: _summed,
}


class Meter(TorchDispatchMode):
    """A context that sees every torch op.

    Parameters
    ----------
    held : iterable of Tensor
        Tensors that live already, such as weights.

    Attributes
    ----------
    flops : int
        Of matrix products and attention. Elementwise ops are left out.
    live_bytes, peak_bytes : int
        Storages that are alive now, and the most at any time [bytes]. Scratch memory inside a
        kernel and the allocator's rounding and fragmentation are left out.
    """

    def __init__(self, held: Iterable[torch.Tensor] = ()):
        super().__init__()
        self.flops = self.live_bytes = self.peak_bytes = 0
        self._seen: dict[int, weakref.finalize] = {}
        for tensor in held:
            self._see(_stored(tensor).untyped_storage())

    def __enter__(self):
        # FSDP lets go of weights, and takes them back, by resizing their storage: no torch op.
        self._resize = resize = torch.UntypedStorage.resize_

        def resize_and_tell(storage, size):
            resize(storage, size)
            self._resized(storage)

        torch.UntypedStorage.resize_ = resize_and_tell
        return super().__enter__()

    def __exit__(self, *error):
        torch.UntypedStorage.resize_ = self._resize
        return super().__exit__(*error)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        known = _ON_META.get(func) if args and _is_meta(args[0]) else None
        out = (known or func)(*args, **(kwargs or {}))
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.flops += formula(*args, **(kwargs or {}), out_val=out)
        for value in tree_iter(out):
            if isinstance(value, torch.Tensor):
                self._see(_stored(value).untyped_storage())
        return out

    def _see(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self._seen:
            size = storage.nbytes()
            self._seen[key] = weakref.finalize(storage, self._gone, key, size)
            self._seen[key].atexit = False
            self.live_bytes += size
            self.peak_bytes = max(self.peak_bytes, self.live_bytes)

    def _resized(self, storage: torch.UntypedStorage) -> None:
        if storage._cdata in self._seen:
            _, gone, args, _ = self._seen[storage._cdata].detach()
            gone(*args)
            self._see(storage)

    def _gone(self, key: int, size: int) -> None:
        del self._seen[key]
        self.live_bytes -= size
