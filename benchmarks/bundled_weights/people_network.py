"""The network that is trained to find people, and runs as two ONNX files (export_onnx.py)."""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from animaray.models.perception.generated.networks import NormalisedBlock, stem
from animaray.models.pose.layouts import NUM_KEYPOINTS

NUM_LANDMARKS = 5


class PeopleNetwork(nn.Module):
    """Find people, keypoints and faces: a U-shaped network with outputs at one quarter size.

    Pose and face answers share one training but are exported as two files, each with its head.
    """

    def __init__(self, *, widths: tuple[int, int, int, int] = (40, 56, 80, 104)) -> None:
        super().__init__()
        quarter, eighth, sixteenth, last = widths
        self.stem = nn.Sequential(stem(quarter, 4), NormalisedBlock(quarter, quarter))
        self.to_eighth = nn.Sequential(
            NormalisedBlock(quarter, eighth, stride=2), NormalisedBlock(eighth, eighth)
        )
        self.to_sixteenth = nn.Sequential(
            NormalisedBlock(eighth, sixteenth, stride=2), NormalisedBlock(sixteenth, sixteenth)
        )
        self.to_last = nn.Sequential(
            NormalisedBlock(sixteenth, last, stride=2), NormalisedBlock(last, last)
        )
        self.lift_sixteenth = nn.Conv2d(last, sixteenth, 1)
        self.merge_sixteenth = NormalisedBlock(sixteenth, sixteenth)
        self.lift_eighth = nn.Conv2d(sixteenth, eighth, 1)
        self.merge_eighth = NormalisedBlock(eighth, eighth)
        self.lift_quarter = nn.Conv2d(eighth, quarter, 1)
        self.merge_quarter = NormalisedBlock(quarter, quarter)
        # centre, 18 heat maps | 36 offsets and 18 visibilities
        self.pose_heat = self._head(quarter, 1 + NUM_KEYPOINTS)
        self.pose_person = self._head(eighth, 3 * NUM_KEYPOINTS)
        # centre | left, top, right, bottom, 10 landmark offsets
        self.face_heat = self._head(quarter, 1)
        self.face_shape = self._head(quarter, 4 + 2 * NUM_LANDMARKS)
        for head in (self.pose_heat, self.face_heat):
            nn.init.constant_(dict(head[-1].named_parameters())["bias"], -3.0)

    @staticmethod
    def _head(channels: int, outputs: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(), nn.Conv2d(channels, outputs, 1)
        )

    def trunk(
        self, frames: Float[Tensor, "b 3 h w"]
    ) -> tuple[Float[Tensor, "b c qh qw"], Float[Tensor, "b d eh ew"]]:
        """Return the shared features at one quarter and at one eighth of the size."""
        quarter = self.stem(frames)
        eighth = self.to_eighth(quarter)
        sixteenth = self.to_sixteenth(eighth)
        last = self.to_last(sixteenth)
        sixteenth = self.merge_sixteenth(sixteenth + self._double(self.lift_sixteenth(last)))
        eighth = self.merge_eighth(eighth + self._double(self.lift_eighth(sixteenth)))
        quarter = self.merge_quarter(quarter + self._double(self.lift_quarter(eighth)))
        return quarter, eighth

    @staticmethod
    def _double(features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c oh ow"]:
        return functional.interpolate(features, scale_factor=2.0, mode="nearest")

    def pose(
        self, quarter: Float[Tensor, "b c qh qw"], eighth: Float[Tensor, "b d eh ew"]
    ) -> tuple[Float[Tensor, "b 19 qh qw"], Float[Tensor, "b 54 eh ew"]]:
        """Return logits of centre and keypoint heat, and offsets (64 px) with visibility logits."""
        return self.pose_heat(quarter), self.pose_person(eighth)

    def face(
        self, quarter: Float[Tensor, "b c qh qw"]
    ) -> tuple[Float[Tensor, "b 1 qh qw"], Float[Tensor, "b 14 qh qw"]]:
        """Return the logit of face centres, and box and landmark offsets (16 px)."""
        return self.face_heat(quarter), self.face_shape(quarter)

    def forward(self, frames: Float[Tensor, "b 3 h w"]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return pose heat, pose people, face heat, face shape (see pose and face)."""
        quarter, eighth = self.trunk(frames)
        return *self.pose(quarter, eighth), *self.face(quarter)
