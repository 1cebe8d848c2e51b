import pytest
import torch
from torch.testing import assert_close

from animaray.models.alignment.aligner import AlignerConfig, PoseAligner
from animaray.models.alignment.misalignment import (
    MisalignmentConfig,
    alignment_loss,
    random_similarity,
)
from animaray.models.alignment.procrustes import closed_form
from animaray.platform.errors import ConfigError, WeightsError

SMALL = AlignerConfig(width=32, num_heads=2, num_encoder_blocks=1, num_fusion_blocks=1)


def inputs(batch=4):
    reference, driving = torch.rand(batch, 18, 2), torch.rand(batch, 18, 2)
    return reference, torch.rand(batch, 18), driving, torch.rand(batch, 18)


def test_untrained_aligner_is_the_closed_form():
    reference, _, driving, _ = inputs()
    sure = torch.ones(4, 18)
    output = PoseAligner(SMALL)(reference, sure, driving, sure)
    expected = closed_form(driving, reference, sure).apply(driving)
    assert_close(output.aligned, expected, atol=1e-5, rtol=1e-4)


def test_transform_gives_the_aligned_pose():
    aligner = PoseAligner(SMALL)
    torch.nn.init.normal_(aligner.head[-1].weight, std=0.1)
    data = inputs()
    output = aligner(*data)
    assert_close(output.transform.apply(data[2]), output.aligned)


def test_unseen_keypoints_hardly_move_an_untrained_fit():
    reference, _, driving, _ = inputs(1)
    sure, hidden = torch.ones(1, 18), torch.ones(1, 18)
    hidden[0, 3] = 0.1
    moved = driving.clone()
    moved[0, 3] += 1.0
    aligner = PoseAligner(SMALL)
    first = aligner(reference, sure, driving, hidden).transform
    second = aligner(reference, sure, moved, hidden).transform
    assert_close(first.scale, second.scale, atol=1e-2, rtol=0)


def test_training_reduces_the_loss_below_the_closed_form():
    # Reference poses with other limb lengths: the closed form is off, and that can be learned.
    torch.manual_seed(0)
    small = AlignerConfig(width=16, num_heads=1, num_encoder_blocks=1, num_fusion_blocks=1)
    aligner = PoseAligner(small)
    optimizer = torch.optim.AdamW(aligner.parameters(), 5e-3)
    sure = torch.ones(16, 18)
    mean_pose = torch.rand(18, 2) * 0.6 + 0.2
    losses = []
    for _ in range(60):
        target = mean_pose + 0.02 * torch.randn(16, 18, 2)
        reference = target * torch.tensor([1.0, 0.8])
        driving = random_similarity(torch.ones(16), MisalignmentConfig()).apply(target)
        output = aligner(reference, sure, driving, sure)
        loss = alignment_loss(output.aligned, target, sure)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])


def test_full_size_is_within_the_budget():
    count = sum(p.numel() for p in PoseAligner(AlignerConfig()).parameters())
    assert 3e5 < count < 1e6


def test_saved_aligner_aligns_alike(tmp_path):
    aligner, data = PoseAligner(SMALL).eval(), inputs()
    torch.nn.init.normal_(aligner.head[-1].weight, std=0.1)
    aligner.save_pretrained(tmp_path)
    loaded = PoseAligner.from_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(aligner(*data).aligned, loaded(*data).aligned)


def test_missing_weights_are_refused(tmp_path):
    with pytest.raises(WeightsError, match=r"Expected a weights folder with config\.json"):
        PoseAligner.from_pretrained(tmp_path)


def test_width_that_heads_cannot_split_is_refused():
    with pytest.raises(ConfigError, match="multiple of `num_heads`"):
        AlignerConfig(width=30, num_heads=4)
