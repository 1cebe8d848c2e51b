"""Count what a computation costs: floating-point operations and peak live bytes.

The computation runs once on the meta device (shapes without numbers), so a full-size network is
counted within seconds on any machine. One multiply-add is two operations; only convolution, matrix
product and attention count. Attention counts as one fused operator: no score matrix is held, and
its backward pass costs twice the forward pass (the recomputation inside a fused kernel is left
out). Live bytes are every tensor that the computation makes, from its making until nothing refers
to it; weights and inputs made before are left out.
"""

import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as nnf
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry


@dataclass(frozen=True, kw_only=True, slots=True)
class OperationCounts:
    """What one computation costs."""

    flops: int
    """Floating-point operations; a multiply-add is two."""
    peak_bytes: int
    """Largest sum of live tensors."""
    held_bytes: int
    """Sum of live tensors at the end, results included."""
    num_operators: int
    """Operators that made or changed a tensor: about the number of kernels of eager code."""


def count_flops(fn: Callable[[], object]) -> int:
    """Return the floating-point operations of a computation.

    Args:
        fn: Runs it; on meta tensors nothing is computed, on real ones everything is.
    """
    return count_operations(fn).flops


def count_peak_bytes(fn: Callable[[], object]) -> int:
    """Return the largest sum of bytes of tensors that are alive at once and that `fn` made.

    Args:
        fn: As for `count_flops`.
    """
    return count_operations(fn).peak_bytes


def count_operations(fn: Callable[[], object]) -> OperationCounts:
    """Run a computation once and return what it costs.

    Args:
        fn: As for `count_flops`. What it returns is alive until the count ends.
    """
    meter = _Meter()
    with meter, _fused_attention(meter):
        result = fn()
    held = meter.live_bytes
    del result
    return OperationCounts(
        flops=meter.flops,
        peak_bytes=meter.peak_bytes,
        held_bytes=held,
        num_operators=meter.num_operators,
    )


class _Meter(TorchDispatchMode):  # type: ignore[no-untyped-call] # torch's own hook is untyped
    """Sees every operator: adds its operations, follows the storages it makes."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # untyped in torch
        self.flops = 0
        self.live_bytes = 0
        self.peak_bytes = 0
        self.num_operators = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401 - an operator overload
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - whatever the operator returns
        del types
        kwargs = kwargs or {}
        packet = func._overloadpacket  # noqa: SLF001 - the flop registry is keyed by it
        inputs = {
            leaf.untyped_storage()._cdata  # noqa: SLF001 - the storage's identity
            for leaf in tree_leaves((args, kwargs))
            if isinstance(leaf, Tensor)
        }
        result = func(*args, **kwargs)
        if packet in flop_registry:
            self.flops += int(flop_registry[packet](*args, **kwargs, out_val=result))
        is_new = [
            self._follow(leaf, inputs) for leaf in tree_leaves(result) if isinstance(leaf, Tensor)
        ]
        self.num_operators += any(is_new) or func._schema.is_mutable  # noqa: SLF001
        return result

    def _follow(self, tensor: Tensor, inputs: set[int]) -> bool:
        """Count a storage from now until it dies; return whether an operator just made it."""
        storage = tensor.untyped_storage()
        identity, size = storage._cdata, storage.nbytes()  # noqa: SLF001
        if identity in inputs or identity in self._known:
            return False
        self._known.add(identity)
        self.live_bytes += size
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)
        weakref.finalize(storage, self._forget, identity, size)
        return True

    def _forget(self, identity: int, size: int) -> None:
        self._known.discard(identity)
        self.live_bytes -= size


@contextmanager
def _fused_attention(meter: _Meter) -> Iterator[None]:
    """Replace attention of meta tensors by one operator without a score matrix, meanwhile.

    A dispatch mode sees attention only in pieces, and a function mode is off during a backward
    pass, where checkpointing calls attention again; so the function itself is replaced.
    """
    stock = nnf.scaled_dot_product_attention

    def attention(query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Tensor:  # noqa: ANN401
        if query.device.type != "meta":
            return stock(query, key, value, *args, **kwargs)
        fused: Tensor = _FusedAttention.apply(meter, query, key, value)  # type: ignore[no-untyped-call]
        return fused

    nnf.scaled_dot_product_attention = attention
    try:
        yield
    finally:
        nnf.scaled_dot_product_attention = stock


class _FusedAttention(torch.autograd.Function):
    """Shapes and costs of fused attention; used on the meta device only, where nothing is added."""

    @staticmethod
    def forward(ctx: Any, meter: _Meter, query: Tensor, key: Tensor, value: Tensor) -> Tensor:  # noqa: ANN401
        # As fused kernels do, heads lie beside each other within a token: merging them is a view.
        *batch, heads, tokens, _ = query.shape
        output = query.new_empty(*batch, tokens, heads, value.shape[-1]).transpose(-2, -3)
        statistics = query.new_empty(query.shape[:-1], dtype=torch.float32)
        ctx.meter = meter
        ctx.save_for_backward(query, key, value, output, statistics)
        meter.flops += _attention_flops(query, key, value)
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:  # noqa: ANN401
        query, key, value, _, _ = ctx.saved_tensors
        ctx.meter.flops += 2 * _attention_flops(query, key, value)
        del gradients
        return None, torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


def _attention_flops(query: Tensor, key: Tensor, value: Tensor) -> int:
    """Two matrix products: queries with keys, weights with values."""
    batch = query.shape[:-2].numel()
    return 2 * batch * query.shape[-2] * key.shape[-2] * (key.shape[-1] + value.shape[-1])
