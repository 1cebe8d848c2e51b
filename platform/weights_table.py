"""The rows of the weights registry (animaray.platform.weights): facts only, no behaviour.

Sizes and SHA-256 of the permissive rows were measured on the files themselves; those of the paper
rows are the published ones, and None where we could not confirm a figure ("unverified").
"""

from dataclasses import dataclass

BUNDLED = "bundled"
"""Source of files that are shipped inside the package."""
HUGGINGFACE = "huggingface:"
"""Prefix of sources of the form huggingface:owner/name/path/in/repository."""
CONVERTED = "converted:"
"""Prefix of sources that are no download: a conversion of the file that the address names."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightsEntry:
    """One weights file or folder that some part of animaray loads."""

    id: str
    """Name in commands and messages, `profile/part`."""
    purpose: str
    """What the network does, in a few words."""
    file: str
    """Name below the weights folders (a relative path); a folder where it has no suffix."""
    source: str
    """`bundled`, `huggingface:owner/name/path`, `converted:<address>` or an https address."""
    size_bytes: int | None
    """Size of the file; None for folders and where it is unverified."""
    sha256: str | None
    """SHA-256 in hexadecimal; None for folders, bundled files (git holds them), unverified ones."""
    licence: str
    """Licence of the weights, or what is known about it."""
    commercial_use: bool
    """Whether the licence allows commercial use."""
    needed_by: tuple[str, ...]
    """Profiles that cannot work without it: generated, permissive, paper; () for an option."""
    archive_bytes: int | None = None
    """Size of the downloaded zip, for sources that are archives; None elsewhere."""
    archive_sha256: str | None = None
    """SHA-256 of that zip; None elsewhere."""

    @property
    def is_archive(self) -> bool:
        """Whether the source is a zip that is unpacked into the folder `file`."""
        return self.source.endswith(".zip")

    @property
    def download_bytes(self) -> int | None:
        """Size of what the source delivers, or None where it is not known."""
        return self.archive_bytes if self.is_archive else self.size_bytes

    @property
    def download_sha256(self) -> str | None:
        """SHA-256 of what the source delivers, or None where it is not known."""
        return self.archive_sha256 if self.is_archive else self.sha256


def _generated(
    part: str, purpose: str, file: str, needed_by: tuple[str, ...] = ("generated",)
) -> WeightsEntry:
    return WeightsEntry(
        id=f"generated/{part}",
        purpose=purpose,
        file=file,
        source=BUNDLED,
        size_bytes=None,
        sha256=None,
        licence="Apache-2.0 (trained by this project on generated figures)",
        commercial_use=True,
        needed_by=needed_by,
    )


_GENERATED = (
    _generated("face_detector", "faces of generated figures", "face_detector.onnx"),
    _generated("identity", "identity of generated faces", "identity.safetensors"),
    _generated("pose", "body keypoints of generated figures", "pose.onnx"),
    _generated(
        "image_encoder",
        "image embedding in CLIP's place",
        "image_encoder.safetensors",
        ("generated", "permissive"),
    ),
    _generated("codec", "frames to 4-channel latents and back", "codec.safetensors"),
    _generated("animator", "small animator for 192 px figures", "animator"),
    _generated("aligner", "small pose aligner (optional)", "aligner", needed_by=()),
)

_PERMISSIVE_PROFILE = ("permissive",)
_YUNET = "https://github.com/ShiqiYu/libfacedetection.train/raw"
_MEDIAPIPE = "https://github.com/google-ai-edge/mediapipe/blob/63e679d99ca4/mediapipe/modules"
_TAESD = "https://github.com/madebyollin/taesd/raw/5cccb12dc72074a4be35680c3b108548a7c69978"

_PERMISSIVE = (
    WeightsEntry(
        id="permissive/face_detector",
        purpose="faces with five landmarks (YuNet)",
        file="face_det.onnx",
        source=f"{_YUNET}/0047ac24afb1/onnx/yunet_n_640_640.onnx",
        size_bytes=317_466,
        sha256="25a606a145a5b6d7271ae138fbd00eba91dad8b83222ae3f2c7ecd0f4a7b0e31",
        licence="Apache-2.0",
        commercial_use=True,
        needed_by=_PERMISSIVE_PROFILE,
    ),
    WeightsEntry(
        id="permissive/pose_detector",
        purpose="people, for the pose landmarks (MediaPipe)",
        file="pose_det.onnx",
        source=f"{CONVERTED}{_MEDIAPIPE}/pose_detection/pose_detection.tflite",
        size_bytes=6_004_960,
        sha256="1d5cacd5814a36e7598d29f0b78534b0348ff70ae768c7ca1be5801b979a62b7",
        licence="Apache-2.0",
        commercial_use=True,
        needed_by=_PERMISSIVE_PROFILE,
    ),
    WeightsEntry(
        id="permissive/pose_landmarks",
        purpose="33 body points of one person (MediaPipe, lite)",
        file="pose_lm.onnx",
        source=f"{CONVERTED}{_MEDIAPIPE}/pose_landmark/pose_landmark_lite.tflite",
        size_bytes=2_818_962,
        sha256="faf12269ad5953be0d267a55e5eba1193547a51647fd8c88502908267961b825",
        licence="Apache-2.0",
        commercial_use=True,
        needed_by=_PERMISSIVE_PROFILE,
    ),
    WeightsEntry(
        id="development/identity",
        purpose="face identity embedding (MobileFaceNet)",
        file="face_id.ckpt",
        source=(
            "https://github.com/Xiaoccer/MobileFaceNet_Pytorch/raw/"
            "9c6e162647edf1bdc1d194f305d2030c79bf4613/model/best/068.ckpt"
        ),
        size_bytes=4_130_855,
        sha256="e839247cdbdfc023fb7cadeaf53a4549d50c8fc24ad154c02e35920ea8910d99",
        licence="none stated by its authors; trained on CASIA-WebFace: development checks only",
        commercial_use=False,
        needed_by=_PERMISSIVE_PROFILE,
    ),
    WeightsEntry(
        id="permissive/codec_encoder",
        purpose="frames to 32-channel latents (TAEF2)",
        file="vae_enc.pth",
        source=f"{_TAESD}/taef2_encoder.pth",
        size_bytes=2_704_692,
        sha256="10a4e1021e89d7551eaf161352da8dbd0b1aa83872ae28b150c1df1ce2f147b6",
        licence="MIT",
        commercial_use=True,
        needed_by=_PERMISSIVE_PROFILE,
    ),
    WeightsEntry(
        id="permissive/codec_decoder",
        purpose="32-channel latents to frames (TAEF2)",
        file="vae_dec.pth",
        source=f"{_TAESD}/taef2_decoder.pth",
        size_bytes=2_704_756,
        sha256="0a44a31e1ae59eb9dbf9359d24942fd3ef5928162c1800d97a28c61d51be0ab5",
        licence="MIT",
        commercial_use=True,
        needed_by=_PERMISSIVE_PROFILE,
    ),
)


def _paper(part: str, purpose: str, file: str, source: str, licence: str) -> WeightsEntry:
    """Return a row whose size and hash we could not confirm."""
    return WeightsEntry(
        id=f"paper/{part}",
        purpose=purpose,
        file=file,
        source=source,
        size_bytes=None,
        sha256=None,
        licence=f"{licence} (unverified size and hash)",
        commercial_use=False,
        needed_by=("paper",),
    )


_SVD_REPOSITORY = f"{HUGGINGFACE}stabilityai/stable-video-diffusion-img2vid-xt"
_SVD_FOLDER = "stable-video-diffusion-img2vid-xt"
_SVD_LICENCE = "Stability AI Community License; accept it on Hugging Face first"
_STABLE_ANIMATOR = f"{HUGGINGFACE}FrancisRing/StableAnimator/Animation"
_STABLE_ANIMATOR_LICENCE = "code MIT, model card Apache-2.0; fine-tuned from Stable Video Diffusion"
_DWPOSE = f"{HUGGINGFACE}yzd-v/DWPose"

_PAPER = (
    WeightsEntry(
        id="paper/antelopev2",
        purpose="face detector SCRFD-10G and identity embedding glintr100 (InsightFace)",
        file="antelopev2",
        source="https://github.com/deepinsight/insightface/releases/download/v0.7/antelopev2.zip",
        size_bytes=None,
        sha256=None,
        licence="InsightFace models: non-commercial research only",
        commercial_use=False,
        needed_by=("paper",),
        archive_bytes=360_662_982,
        archive_sha256="8e182f14fc6e80b3bfa375b33eb6cff7ee05d8ef7633e738d1c89021dcf0c5c5",
    ),
    _paper(
        "cotracker3",
        "point tracks through a clip (CoTracker3, online)",
        "scaled_online.pth",
        f"{HUGGINGFACE}facebook/cotracker3/scaled_online.pth",
        "CC-BY-NC-4.0",
    ),
    WeightsEntry(
        id="paper/person_detector",
        purpose="people, for DWPose (YOLOX-l)",
        file="yolox_l.onnx",
        source=f"{_DWPOSE}/yolox_l.onnx",
        size_bytes=216_746_733,
        sha256="7860ae79de6c89a3c1eb72ae9a2756c0ccfbe04b7791bb5880afabd97855a411",
        licence="Apache-2.0",
        commercial_use=True,
        needed_by=("paper",),
    ),
    WeightsEntry(
        id="paper/pose",
        purpose="133 whole-body keypoints (DWPose-l, UBody, 384x288)",
        file="dw-ll_ucoco_384.onnx",
        source=f"{_DWPOSE}/dw-ll_ucoco_384.onnx",
        size_bytes=134_399_116,
        sha256="724f4ff2439ed61afb86fb8a1951ec39c6220682803b4a8bd4f598cd913b1843",
        licence="Apache-2.0",
        commercial_use=True,
        needed_by=("paper",),
    ),
    *(
        _paper(
            f"stable-video-diffusion/{part}",
            purpose,
            f"{_SVD_FOLDER}/{part}/{file}",
            f"{_SVD_REPOSITORY}/{part}/{file}",
            _SVD_LICENCE,
        )
        for part, purpose, file in (
            ("unet", "video U-Net to start from", "diffusion_pytorch_model.fp16.safetensors"),
            ("vae", "frames to latents and back", "diffusion_pytorch_model.fp16.safetensors"),
            ("image_encoder", "image embedding (CLIP ViT-H/14)", "model.fp16.safetensors"),
        )
    ),
    *(
        _paper(
            f"stable-animator/{part}",
            purpose,
            f"Animation/{part}.pth",
            f"{_STABLE_ANIMATOR}/{part}.pth",
            _STABLE_ANIMATOR_LICENCE,
        )
        for part, purpose in (
            ("unet", "video U-Net with identity adapter, published weights"),
            ("pose_net", "pose encoder, published weights"),
            ("face_encoder", "face encoder, published weights"),
        )
    ),
)

WEIGHTS: dict[str, WeightsEntry] = {
    entry.id: entry for entry in (*_GENERATED, *_PERMISSIVE, *_PAPER)
}
"""Every weights file by id."""
