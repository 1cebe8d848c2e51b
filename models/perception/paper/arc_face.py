"""Face identity by ArcFace (IResNet-100, glintr100), as a network that gradients pass through.

The published Face Encoder takes the raw output; comparisons take the unit vector.

References:
    Deng, Guo, Xue, Zafeiriou 2019, "ArcFace", arXiv 1801.07698.
"""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor, nn
from torch.nn import functional

from animaray.models.frames import to_frames
from animaray.models.perception.checkpoint_files import Shapes, fill_network, open_state, shapes_of
from animaray.models.perception.face_alignment import align_face
from animaray.models.perception.paper.arc_face_onnx import state_from_onnx
from animaray.models.perception.paper.iresnet import CROP_PX, IResNet, IResNetConfig
from animaray.models.perception.protocols import ChannelOrder
from animaray.platform.errors import WeightsError
from animaray.platform.weights.store import resolve_weights

ONNX_FILE = "glintr100.onnx"
_TEMPLATE = (
    (38.2946, 51.6963),
    (73.5318, 51.5014),
    (56.0252, 71.7366),
    (41.5493, 92.3655),
    (70.7299, 92.2041),
)


class ArcFaceEmbedder(nn.Module):
    """Identity embeddings of 112x112 aligned faces."""

    def __init__(self, network: IResNet) -> None:
        super().__init__()
        self.name = "paper/arcface"
        self.embedding_dim = network.config.embedding_dim
        self.crop_height_px = CROP_PX
        self.crop_width_px = CROP_PX
        self.network = network.requires_grad_(False).eval()  # noqa: FBT003 - PyTorch's signature

    @classmethod
    def load(cls, file: Path | None = None) -> "ArcFaceEmbedder":
        """Load safetensors, a published `.pth` or InsightFace's ONNX file; frozen.

        Args:
            file: None takes glintr100.onnx of the registered `paper/antelopev2`.

        Raises:
            WeightsError: The file is missing, damaged or of another network.
        """
        file = file or resolve_weights("paper/antelopev2") / ONNX_FILE
        if not file.is_file():
            raise WeightsError(
                f"Expected ArcFace's weights at {file}; there is no such file.",
                fix="Get them again: `animaray weights pull paper/antelopev2`.",
                reason="missing",
            )
        state = read_arc_face(file)
        network = IResNet(iresnet_config(shapes_of(state), file))
        fill_network(network, state, f"The weights of {file} and IResNet")
        return cls(network)

    def template(self) -> Float32[np.ndarray, "5 2"]:
        """Return where the five landmarks belong in the aligned crop, pixels."""
        return np.array(_TEMPLATE, dtype=np.float32)

    def embed(
        self,
        frame: UInt8[np.ndarray, "height width 3"],
        landmarks: Float32[np.ndarray, "5 2"],
    ) -> Float32[np.ndarray, " embedding"]:
        """Return the unit embedding of one face of an RGB picture."""
        raw = self.embed_raw(frame, landmarks)
        return raw / max(float(np.linalg.norm(raw)), 1e-12)

    def embed_raw(
        self,
        frame: UInt8[np.ndarray, "height width 3"],
        landmarks: Float32[np.ndarray, "5 2"],
        channel_order: ChannelOrder = "rgb",
    ) -> Float32[np.ndarray, " embedding"]:
        """Return the network's own output for one face of an RGB picture, about 20 long.

        Args:
            landmarks: Eyes, nose, mouth corners, pixels of the picture.
            channel_order: What the network is shown. It wants RGB; `bgr` repeats the exchange of
                red and blue in the published inference scripts.
        """
        crop = align_face(frame, landmarks, self.template(), CROP_PX, CROP_PX)
        if channel_order == "bgr":
            crop = crop[..., ::-1].copy()
        device = next(self.parameters()).device
        crops = to_frames(crop[None], device)
        with torch.inference_mode():
            raw: np.ndarray = self.network(crops)[0].float().cpu().numpy()
        return raw

    def embed_crops(
        self, crops: Float[Tensor, "crops 3 crop_height crop_width"]
    ) -> Float[Tensor, "crops embedding"]:
        """Return unit embeddings of aligned RGB crops in [-1, 1]; gradients flow to the crops."""
        return functional.normalize(self.network(crops), dim=-1)


def read_arc_face(file: Path) -> dict[str, Tensor]:
    """Return IResNet's state dict of a safetensors, PyTorch or ONNX file."""
    return state_from_onnx(file) if file.suffix == ".onnx" else open_state(file)


def iresnet_config(shapes: Shapes, file: Path) -> IResNetConfig:
    """Return the sizes that a state dict was made with, as far as its shapes say.

    Args:
        shapes: Of the whole state dict.
        file: Where it came from, for the message.

    Raises:
        WeightsError: It is none of IResNet's.
    """
    stages: dict[int, int] = {}
    widths: dict[int, int] = {}
    for key, shape in shapes.items():
        parts = key.split(".")
        if parts[0].startswith("layer") and parts[2:] == ["conv1", "weight"]:
            stage = int(parts[0].removeprefix("layer"))
            stages[stage] = max(stages.get(stage, 0), int(parts[1]) + 1)
            if parts[1] == "0":
                widths[stage] = shape[0]
    if "fc.weight" not in shapes or not stages or len(widths) != len(stages):
        raise WeightsError(
            "Expected the state dict of an IResNet (layer1.0.conv1.weight to fc.weight) in "
            f"{file}, got {len(shapes)} other keys.",
            fix="Use glintr100_torch.pth or antelopev2's glintr100.onnx.",
            reason="other",
        )
    return IResNetConfig(
        blocks=tuple(stages[stage] for stage in sorted(stages)),
        widths=tuple(widths[stage] for stage in sorted(stages)),
        embedding_dim=shapes["fc.weight"][0],
    )
