"""Choose the frozen networks by profile: what sees people, makes latents, sums up a picture.

generated   small networks that ship with animaray, for the generated world only
permissive  real footage, on CPUs: MediaPipe's body, face detector and face mesh (Apache-2.0),
            dlib's recogniser (CC0), optical flow, TAEF2 (MIT); all allow commercial use
paper       the published method's own: SCRFD and ArcFace (InsightFace's weights, non-commercial, by
            its own package where that is installed), DWPose, CoTracker3 (non-commercial), Stable
            Video Diffusion's VAE and image encoder

Nothing is loaded before a function here is called, and nothing is ever downloaded. A file that is
missing or damaged raises WeightsError, which names the file and the way to it; an unknown profile
raises ConfigError.
"""

import logging
import os
from pathlib import Path
from typing import Literal, get_args

import cv2
import torch

from animaray.models.perception.files import reads_earlier_files
from animaray.models.perception.permissive.optical_flow import OpticalFlowTracker
from animaray.models.perception.protocols import (
    FaceDetector,
    ImageEncoder,
    LatentCodec,
    Perception,
    PointTracker,
    TextDetector,
)
from animaray.models.pose.layouts import PoseLayout
from animaray.platform.errors import ConfigError, MachineError
from animaray.platform.weights.store import resolve_weights

PROFILES = ("generated", "permissive", "paper")
"""The profiles that every function here knows."""

Profile = Literal["generated", "permissive", "paper"]

VAE_FOLDER = "vae"
"""Of a weights folder that brings its own codec."""
IMAGE_ENCODER_FOLDER = "image_encoder"
"""Of a weights folder that brings its own image encoder."""
_log = logging.getLogger("animaray.models")

IDENTITY_FOLDER = "identity"
"""Of a weights folder that brings its own recogniser."""
_IDENTITY_FILE = "diffusion_pytorch_model.safetensors"


def load_perception(
    profile: str,
    *,
    num_threads: int | None = None,
    folder: Path | None = None,
    device: str = "cpu",
    pose_layout: PoseLayout = "openpose_18",
) -> Perception:
    """Load face detector, identity embedder and pose estimator of a profile.

    Args:
        folder: Weights folder whose own recogniser, if any, comes before the registered one
            (profile paper).
        num_threads: CPU threads of onnxruntime and LiteRT, and of PyTorch and OpenCV in this whole
            process; None takes OMP_NUM_THREADS or 1 for the first two and leaves the others alone.
        device: "cpu" or "cuda"; every network of the profile works there. Only MediaPipe's stay
            behind, with a word in the log: LiteRT has no CUDA.
        pose_layout: Least points of a pose. paper always has all; permissive looks at hands and
            faces only for `whole_body_134`, which takes twice the time of a body alone.

    Raises:
        MachineError: CUDA is asked for and PyTorch has none.
        ConfigError: Hands and faces are asked for of a profile that cannot see them.
    """
    name = _known(profile)
    if device == "cuda" and not torch.cuda.is_available():
        raise MachineError(
            f"CUDA was asked for, but PyTorch {torch.__version__} sees no GPU on this machine.",
            fix="See `animaray doctor`, or choose device cpu.",
        )
    threads = _use_threads(num_threads)
    if name == "generated":
        if pose_layout != "openpose_18":
            raise ConfigError(
                "Profile generated sees bodies only; its people have no hands or face points.",
                fix="Use profile paper or permissive, or a model with pose_layout openpose_18.",
            )
        from animaray.models.perception.generated.faces import GeneratedFaceDetector
        from animaray.models.perception.generated.identity import GeneratedIdentityEmbedder
        from animaray.models.perception.generated.pose import GeneratedPoseEstimator

        return Perception(
            profile=name,
            face_detector=GeneratedFaceDetector(device=device),
            identity_embedder=GeneratedIdentityEmbedder.load().to(device),
            pose_estimator=GeneratedPoseEstimator(device=device),
        )
    if name == "paper":
        from animaray.models.perception.paper.arc_face import ArcFaceEmbedder
        from animaray.models.perception.paper.dwpose import DwposeEstimator

        own = folder and folder / IDENTITY_FOLDER / _IDENTITY_FILE
        return Perception(
            profile=name,
            face_detector=_insightface_or_scrfd(threads, device),
            identity_embedder=ArcFaceEmbedder.load(own if own and own.is_file() else None).to(
                device
            ),
            pose_estimator=DwposeEstimator.load(num_threads=threads, device=device),
        )
    if pose_layout == "openpose_18" and reads_earlier_files():
        return _earlier_permissive(threads, device)
    from animaray.models.perception.permissive.dlib_identity import DlibIdentityEmbedder
    from animaray.models.perception.permissive.head_faces import HeadFaceDetector
    from animaray.models.perception.permissive.mediapipe_pose import MediaPipePoseEstimator
    from animaray.models.perception.permissive.mediapipe_whole_body import MediaPipeWholeBody

    poses = MediaPipePoseEstimator if pose_layout == "openpose_18" else MediaPipeWholeBody
    return Perception(
        profile=name,
        face_detector=HeadFaceDetector.load(num_threads=threads, device=device),
        identity_embedder=DlibIdentityEmbedder.load().to(device),
        pose_estimator=poses.load(num_threads=threads, device=device),
    )


def _earlier_permissive(num_threads: int, device: str) -> Perception:
    """Return profile permissive from the files of earlier versions, and say so."""
    from animaray.models.perception.permissive.mediapipe_pose import MediaPipePoseEstimator
    from animaray.models.perception.permissive.mobile_face_net import MobileFaceNetEmbedder
    from animaray.models.perception.permissive.yunet import YuNetFaceDetector

    _log.warning(
        "Profile permissive sees by the files of an earlier version, as its own are not here: "
        "`animaray weights pull --profile permissive` gets them."
    )
    return Perception(
        profile="permissive",
        face_detector=YuNetFaceDetector.load(device=device),
        identity_embedder=MobileFaceNetEmbedder.load().to(device),
        pose_estimator=MediaPipePoseEstimator.load_conversions(
            num_threads=num_threads, device=device
        ),
    )


def _insightface_or_scrfd(num_threads: int, device: str) -> FaceDetector:
    """Return the published face detector, run by its authors' package where that is installed."""
    from animaray.models.perception.paper.insightface_analysis import (
        InsightFaceAnalysis,
        is_installed,
    )
    from animaray.models.perception.paper.scrfd import ScrfdFaceDetector

    if is_installed():  # the recogniser is our own ArcFace: once in memory is enough
        return InsightFaceAnalysis.load(num_threads=num_threads, device=device, embeds=False)
    return ScrfdFaceDetector.load(num_threads=num_threads, device=device)


def load_point_tracker(profile: str) -> PointTracker:
    """Load the point tracker of a profile; only curation needs one.

    Without the package or the weights of CoTracker the profile paper raises MachineError or
    WeightsError, which name the command that gets them.
    """
    if _known(profile) == "paper":
        from animaray.models.perception.paper.cotracker import CoTrackerTracker

        return CoTrackerTracker.load()
    return OpticalFlowTracker()


def load_text_detector(*, num_threads: int = 1) -> TextDetector:
    """Load what reads burned-in text, the same under every profile; only curation needs it.

    Without its package MachineError is raised, which names the command that gets it.

    Args:
        num_threads: CPU threads of its networks.
    """
    from animaray.models.perception.permissive.rapid_ocr import RapidOcrTextDetector

    return RapidOcrTextDetector(num_threads=num_threads)


def load_codec(profile: str, *, folder: Path | None = None) -> LatentCodec:
    """Load the latent codec of a profile, frozen; it is a torch module, on the CPU.

    Args:
        folder: Weights folder whose own VAE, if any, comes before the registered one (paper).
    """
    name = _known(profile)
    if name == "generated":
        from animaray.models.perception.generated.codec import GeneratedCodec

        return GeneratedCodec.load()
    if name == "paper":
        from animaray.models.perception.paper.backbone_files import (
            VAE_FILES,
            find_part,
            load_autoencoder,
        )
        from animaray.models.perception.paper.temporal_autoencoder import TemporalAutoencoderCodec

        own = find_part(folder / VAE_FOLDER, VAE_FILES) if folder else None
        file = own or resolve_weights("paper/stable-video-diffusion/vae")
        return TemporalAutoencoderCodec(load_autoencoder(file))
    from animaray.models.perception.permissive.tiny_autoencoder import TinyAutoencoderCodec

    return TinyAutoencoderCodec.load()


def load_image_encoder(profile: str, *, folder: Path | None = None) -> ImageEncoder:
    """Load the image encoder of a profile, frozen; it is a torch module, on the CPU.

    The permissive profile has none of its own and uses the generated one: its embedding sums up
    colours and layout of a real picture, but it was never trained on photographs.

    Args:
        folder: Weights folder whose own image encoder, if any, comes before the registered one
            (profile paper).
    """
    if _known(profile) == "paper":
        from animaray.models.perception.paper.backbone_files import IMAGE_ENCODER_FILES, find_part
        from animaray.models.perception.paper.clip_image_encoder import ClipImageEncoder

        own = find_part(folder / IMAGE_ENCODER_FOLDER, IMAGE_ENCODER_FILES) if folder else None
        return ClipImageEncoder.load(own)
    from animaray.models.perception.generated.image_encoder import GeneratedImageEncoder

    return GeneratedImageEncoder.load()


def _known(profile: str) -> Profile:
    """Return the profile's name, checked.

    Raises:
        ConfigError: It is unknown.
    """
    for name in get_args(Profile):
        if profile == name:
            known: Profile = name
            return known
    raise ConfigError(f"Unknown perception profile `{profile}`; known are {', '.join(PROFILES)}.")


def _use_threads(num_threads: int | None) -> int:
    """Return the threads of onnxruntime sessions, setting PyTorch's and OpenCV's when asked.

    Raises:
        ConfigError: num_threads is below 1.
    """
    if num_threads is None:
        given = os.environ.get("OMP_NUM_THREADS", "")
        return max(1, int(given)) if given.isdecimal() else 1
    if num_threads < 1:
        raise ConfigError(f"Expected num_threads >= 1, got {num_threads}.")
    torch.set_num_threads(num_threads)
    cv2.setNumThreads(num_threads)
    return num_threads
