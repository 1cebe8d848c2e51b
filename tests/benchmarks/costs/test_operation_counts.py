import torch
import torch.nn.functional as nnf
from torch import nn
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.costs.operation_counts import (
    count_flops,
    count_operations,
    count_peak_bytes,
)


def meta(*shape, **settings):
    return torch.empty(*shape, device="meta", **settings)


def test_one_matrix_product_costs_two_operations_per_multiply_add():
    left, right = meta(3, 5), meta(5, 7)
    assert count_flops(lambda: left @ right) == 2 * 3 * 5 * 7
    assert count_peak_bytes(lambda: left @ right) == 3 * 7 * 4


def test_real_tensors_count_like_meta_tensors():
    layer = nn.Conv2d(4, 8, 3, padding=1)
    picture = torch.randn(2, 4, 6, 6)
    real = count_operations(lambda: layer(picture).relu())
    with torch.device("meta"):
        shape_only = nn.Conv2d(4, 8, 3, padding=1)
    shapes = count_operations(lambda: shape_only(meta(2, 4, 6, 6)).relu())
    assert real.flops == shapes.flops == 2 * 2 * 36 * 8 * 4 * 9
    assert shapes.peak_bytes == real.peak_bytes + 2 * 4 * 36 * 4


def test_views_and_changes_in_place_make_no_bytes():
    start = meta(4, 4)
    counted = count_operations(lambda: (start + 1).view(16).add_(1)[:4])
    assert counted.peak_bytes == counted.held_bytes == 64
    assert counted.num_operators == 2


def test_freed_tensors_do_not_count():
    start = meta(1024)

    def chain():
        current = start
        for _ in range(5):
            current = current * 2
        return current

    counted = count_operations(chain)
    assert counted.peak_bytes == 2 * 4096
    assert counted.held_bytes == 4096


def test_operations_agree_with_pytorchs_counter():
    picture, weight = meta(2, 3, 8, 8, requires_grad=True), meta(8, 3, 3, 3)

    def gradient():
        features = nnf.silu(nnf.group_norm(nnf.conv2d(picture, weight), 2))
        return torch.autograd.grad((features.flatten(1) @ meta(288, 2)).sum(), picture)

    with FlopCounterMode(display=False) as counter:
        gradient()
    assert count_flops(gradient) == counter.get_total_flops() > 0


def test_attention_holds_no_score_matrix_and_costs_twice_backward():
    query = meta(1, 2, 512, 16, requires_grad=True)
    forward = count_operations(lambda: nnf.scaled_dot_product_attention(query, query, query))
    both = count_operations(
        lambda: torch.autograd.grad(
            nnf.scaled_dot_product_attention(query, query, query).sum(), query
        )
    )
    assert forward.flops == 2 * (2 * 2 * 512 * 512 * 16)
    assert both.flops == 3 * forward.flops
    assert both.peak_bytes < 2 * 512 * 512 * 4


def test_checkpointing_lowers_the_peak_and_costs_one_more_forward():
    with torch.device("meta"):
        layers = nn.ModuleList(
            nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 64)) for _ in range(6)
        )
    tokens = meta(128, 64, requires_grad=True)

    def step(saving):
        current = tokens
        for layer in layers:
            current = checkpoint(layer, current, use_reentrant=False) if saving else layer(current)
        return torch.autograd.grad(current.sum(), tokens)

    plain, saved = (count_operations(lambda s=s: step(s)) for s in (False, True))
    forward = count_flops(lambda: [layer(tokens) for layer in layers])
    assert saved.peak_bytes < 0.6 * plain.peak_bytes
    # The second product of a layer is not needed for its gradient and is not done again.
    assert saved.flops == plain.flops + forward // 2
