import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from animaray.models.alignment.aligner import AlignerConfig, PoseAligner
from animaray.models.animation.pipeline import (
    AnimationOptions,
    AnimationPipeline,
    default_sampler,
)
from animaray.models.animation.settings import sampler_settings
from animaray.models.face.identity import FaceIdentity
from animaray.models.face.optimization_config import FaceOptimizationConfig
from animaray.models.networks.animator import Animator
from animaray.models.networks.animator_config import AnimatorConfig
from animaray.platform.errors import ConfigError, FaceError, WeightsError

OPTIONS = AnimationOptions(
    seed=3,
    num_inference_steps=2,
    guidance_scale=1.5,
    face_optimization_config=FaceOptimizationConfig(num_iterations=2, num_steps=1, start_step=0),
)


@pytest.fixture(scope="module")
def pipeline(marker_perception, marker_networks):
    torch.manual_seed(0)
    aligner = PoseAligner(AlignerConfig(width=16, num_heads=1)).eval()
    animator = Animator(replace(AnimatorConfig.tiny(), height_px=64, width_px=64))
    return AnimationPipeline(animator, aligner, *marker_networks, marker_perception)


@pytest.fixture
def reference(pipeline, marker_picture):
    return pipeline.prepare_reference(marker_picture())


@pytest.fixture
def motion(pipeline, marker_picture):
    frames = np.stack([marker_picture(96, 72, left=left) for left in (20, 24, 28, 32, 36)])
    return pipeline.estimate_motion(frames)


def test_every_part_of_the_result_fits(pipeline, reference, motion):
    animation = pipeline.animate(reference, motion, OPTIONS)
    assert animation.frames_uint8.shape == (5, 64, 64, 3)
    assert animation.pose_images.shape == (5, 64, 64, 3)
    assert animation.keypoints.shape == (5, 18, 2)
    assert animation.identity_similarity.shape == (5,)
    # Driving person of 48 px in 72: in the reference 48 px in 64. Heights 72 -> 64 : 64 / 72 up.
    assert animation.alignment_report.scale == pytest.approx(72 / 64, rel=0.02)
    # The clip's person moves 4 px per frame, in pixels of the reference's picture as well.
    steps = np.diff(animation.keypoints[:, 0, 0])
    assert np.allclose(steps, 4, atol=0.2)
    assert [entry.step_index for entry in animation.face_optimization] == [0]
    assert json.loads(json.dumps(animation.summary()))["num_frames"] == 5
    assert animation.describe().startswith("5 frames, 64x64, ")


def test_equal_seeds_give_equal_frames(pipeline, reference, motion):
    first, second = (pipeline.animate(reference, motion, OPTIONS) for _ in "ab")
    assert np.array_equal(first.frames_uint8, second.frames_uint8)
    other = pipeline.animate(reference, motion, replace(OPTIONS, seed=4))
    assert not np.array_equal(first.frames_uint8, other.frames_uint8)


def test_progress_names_phases_and_counts_to_the_end(pipeline, reference, motion):
    seen = []
    pipeline.animate(reference, motion, OPTIONS, seen.append)
    assert seen[0].phase == "align"
    assert [entry.phase for entry in seen][-2:] == ["decode", "measure"]
    assert seen[-1].step == seen[-1].num_steps == 4
    steps = [entry.step for entry in seen]
    assert steps == sorted(steps)
    assert any(entry.identity_similarity is not None for entry in seen)


def test_raising_in_progress_ends_the_animation(pipeline, reference, motion):
    class Cancelled(Exception):  # noqa: N818
        pass

    phases = []

    def cancel(progress):
        phases.append(progress.phase)
        if progress.phase == "denoise":
            raise Cancelled

    with pytest.raises(Cancelled):
        pipeline.animate(reference, motion, OPTIONS, cancel)
    assert phases[-1] == "denoise"


def test_face_optimization_can_be_switched_off(pipeline, reference, motion):
    animation = pipeline.animate(reference, motion, replace(OPTIONS, face_optimization=False))
    assert animation.face_optimization == ()


@pytest.mark.parametrize("method", ["none", "fit", "procrustes", "learned"])
def test_each_alignment_can_be_chosen(pipeline, reference, motion, method):
    options = replace(OPTIONS, alignment=method, face_optimization=False)
    animation = pipeline.animate(reference, motion, options)
    assert np.isfinite(animation.keypoints).all()


def test_learned_alignment_needs_an_aligner(pipeline, reference, motion):
    without = AnimationPipeline(
        pipeline.animator, None, pipeline.codec, pipeline.image_encoder, pipeline.perception
    )
    with pytest.raises(ConfigError, match="`learned` needs an aligner"):
        without.animate(reference, motion, replace(OPTIONS, alignment="learned"))
    assert without.animate(reference, motion, OPTIONS).alignment_report.residual < 1


@pytest.mark.parametrize("mode", ["fast", "published", "literal"])
def test_each_mode_of_face_optimization_can_be_named(pipeline, reference, motion, mode):
    options = replace(OPTIONS, face_optimization=mode)
    assert pipeline.animate(reference, motion, options).face_optimization
    off = replace(OPTIONS, face_optimization="off")
    assert pipeline.animate(reference, motion, off).face_optimization == ()


def test_a_character_without_a_face_is_animated_without_an_identity(
    pipeline, marker_picture, motion
):
    picture = marker_picture(colour=(90, 90, 90))
    with pytest.raises(FaceError, match="shows no face") as refusal:
        pipeline.prepare_reference(picture)
    assert "--no-face" in refusal.value.fix
    reference = pipeline.prepare_reference(picture, no_face=True)
    assert reference.face is None
    for options in (OPTIONS, replace(OPTIONS, no_face=True)):
        animation = pipeline.animate(reference, motion, options)
        assert animation.face_optimization == ()
        assert np.isnan(animation.identity_similarity).all()
        assert animation.summary()["identity_similarity"] is None
    # A face that is there is not looked at, either.
    ignored = pipeline.prepare_reference(marker_picture(), no_face=True)
    assert not ignored.identity.face_encoder_input("unit").any()
    with pytest.raises(ConfigError, match="no identity to exchange"):
        ignored.with_identity(np.eye(16, dtype=np.float32)[0])
    with pytest.raises(ConfigError, match="no identity that face optimization"):
        AnimationOptions(no_face=True, face_optimization="fast")


def test_several_people_have_poses_and_identities_of_their_own(pipeline, reference, motion):
    other_face = FaceIdentity(unit=np.roll(reference.identity_embedding, 1))
    moved = replace(reference.pose, keypoints=reference.pose.keypoints + np.float32([-20, 0]))
    companion = replace(reference, identity=other_face, pose=moved)
    alone = pipeline.animate(reference, motion, OPTIONS)
    both = pipeline.animate(reference, motion, OPTIONS, companions=[(companion, motion)])
    (other,) = both.companions
    # Each follows the same motion from its own place.
    assert np.allclose(other.keypoints, both.keypoints + np.float32([-20, 0]), atol=1e-3)
    assert np.array_equal(both.keypoints, alone.keypoints)
    drawn = (both.pose_images > 0).any(axis=3).sum()
    assert drawn > (alone.pose_images > 0).any(axis=3).sum()
    assert other.identity_similarity.shape == (5,)
    assert not np.array_equal(both.frames_uint8, alone.frames_uint8)
    assert len(both.summary()["companions"]) == 1
    assert " and " in both.describe()


def test_people_must_move_equally_long(pipeline, reference, motion):
    with pytest.raises(ConfigError, match=r"one length for all people, got \[3, 5\]"):
        pipeline.animate(reference, motion, OPTIONS, companions=[(reference, motion.first(3))])


def test_previews_come_when_asked_and_change_nothing(pipeline, reference, motion):
    previews = []
    options = replace(OPTIONS, num_inference_steps=4, preview_every=2)
    animation = pipeline.animate(reference, motion, options, on_preview=previews.append)
    assert [preview.step for preview in previews] == [2, 4]
    assert previews[0].frame_indices == (0, 1, 3, 4)
    # The last estimate is the result.
    last = previews[1]
    assert np.array_equal(last.frames_uint8, animation.frames_uint8[list(last.frame_indices)])
    without = pipeline.animate(reference, motion, replace(options, preview_every=0))
    assert np.array_equal(without.frames_uint8, animation.frames_uint8)


def test_long_clips_report_their_seams(pipeline, reference, motion):
    assert [seam.num_shared for seam in pipeline.animate(reference, motion, OPTIONS).seams] == [3]
    one = replace(OPTIONS, window_frames=5, window_overlap=0)
    assert pipeline.animate(reference, motion, one).seams == ()


def test_options_change_the_sampler():
    config = AnimatorConfig.generated()
    options = AnimationOptions(
        sampler="heun", guidance_min=1.2, guidance_max=2.0, window_frames=4, window_rule="sliding"
    )
    sampler = sampler_settings(config, options)
    assert (sampler.sampler, sampler.guidance_scale, sampler.guidance_max) == (
        "heun", 1.2, 2.0,
    )  # fmt: skip
    # Windows of 8 overlap by 3: half as long, they overlap by 1.
    assert (sampler.window_frames, sampler.window_overlap) == (4, 1)
    assert sampler_settings(config, AnimationOptions()) == default_sampler(config)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"guidance_min": 2.0}, "belong together"),
        ({"guidance_min": 1.0, "guidance_max": 2.0, "guidance_scale": 2.0}, "not both"),
        ({"preview_every": -1}, "`preview_every`: Input should be greater than or equal to 0"),
    ],
)
def test_contradicting_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        AnimationOptions(**options)


def test_default_sampler_suits_the_model():
    published = default_sampler(AnimatorConfig.published())
    assert (published.num_inference_steps, published.sigma_max) == (25, 700.0)
    assert (published.window_frames, published.window_overlap) == (16, 4)
    small = default_sampler(AnimatorConfig.generated())
    assert (small.sigma_max, small.window_frames, small.window_rule) == (2.0, 8, "sliding")
    plain = default_sampler(replace(AnimatorConfig.generated(), warped_reference=None))
    assert (plain.sigma_max, plain.num_inference_steps) == (80.0, 20)


def test_saved_folder_holds_all_parts(pipeline, tmp_path):
    pipeline.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "perception.json").read_text()) == {"profile": "generated"}
    assert Animator.from_pretrained(tmp_path).config == pipeline.animator.config
    assert PoseAligner.from_pretrained(tmp_path / "aligner").config == pipeline.aligner.config


def test_missing_folder_and_unknown_profile_are_refused(pipeline, tmp_path):
    with pytest.raises(WeightsError, match=r"weights folder with perception\.json"):
        AnimationPipeline.from_pretrained(tmp_path)
    pipeline.save_pretrained(tmp_path)
    (tmp_path / "perception.json").write_text('{"profile": "moon"}')
    with pytest.raises(ConfigError, match="Unknown perception profile `moon`"):
        AnimationPipeline.from_pretrained(tmp_path)
