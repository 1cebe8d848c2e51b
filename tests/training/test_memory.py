"""The estimate of a training's memory against what was counted, and its own arithmetic."""

from dataclasses import replace

import pytest

from animaray.training.memory import ACTIVATION_VALUES, estimate_training_memory
from animaray.training.recipes import animator_1gpu, animator_8xa100, animator_tiny_cpu
from benchmarks.costs import published_parts
from benchmarks.costs.operation_counts import count_peak_bytes
from benchmarks.costs.published_parts import ClipSize

TRAINED = 795_994_256 + 205_557 + 57_183_232
"""U-Net's attentions, PoseNet, Face Encoder (published-model.md, section 1)."""
TOTAL = 1_550_182_122 + 205_557 + 57_183_232


def test_activations_are_as_counted():
    size = ClipSize(width_px=512, height_px=512, num_frames=4)
    counted = count_peak_bytes(published_parts.training_step(size, "none", stock=False))
    cells = 4 * 64 * 64
    assert counted == pytest.approx(2 * cells * ACTIVATION_VALUES["none"], rel=0.15)


def test_weights_gradients_and_states_are_counted():
    recipe = animator_1gpu()
    memory = estimate_training_memory(recipe)
    assert memory.weights_bytes == pytest.approx(4 * TOTAL + 2 * TRAINED, rel=0.03)
    # Two moments and the average; gradients and DDP's buffers of them.
    assert memory.optimizer_bytes == pytest.approx(12 * TRAINED, rel=0.05)
    assert memory.gradients_bytes == pytest.approx(8 * TRAINED, rel=0.05)
    assert memory.activations_bytes == pytest.approx(11.69 * 2**30, rel=0.02)  # benchmarks.costs


def test_sharing_saves_states_and_checkpointing_saves_activations():
    alone, eight = (estimate_training_memory(build()) for build in (animator_1gpu, animator_8xa100))
    assert eight.optimizer_bytes < alone.optimizer_bytes / 2
    assert eight.activations_bytes == alone.activations_bytes
    stored = estimate_training_memory(replace(animator_8xa100(), activation_checkpointing="none"))
    assert stored.peak_bytes > 80e9 > eight.peak_bytes
    tiny = estimate_training_memory(animator_tiny_cpu())
    assert tiny.peak_bytes < 1e9
