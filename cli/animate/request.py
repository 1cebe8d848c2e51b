"""What the user asks of `animaray animate`, whichever engine carries it out."""

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from animaray.models.animation.options import AnimationRequest
from animaray.platform.disk import check_folder
from animaray.platform.errors import UsageError
from animaray.platform.media.file_kind import is_pose_file
from animaray.platform.options import STRICT, Options

MIN_FRAMES = 2
"""A shorter driving motion is refused."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AnimateRequest(Options):
    """What the user asks for."""

    image: Path
    """Reference picture."""
    driving: Path
    """Driving video or pose file."""
    options: AnimationRequest = Field(default_factory=AnimationRequest)
    """Of the animation itself."""
    weights: Path | None = Field(
        default=None,
        description="Weights folder of an animator, for the engine `diffusion`. Left out: the small"
        " bundled one (drawn people only), with diffusion.",
    )
    max_frames: int | None = Field(
        default=None, ge=2, description="Only the first N frames. Left out: all."
    )
    driving_size_px: tuple[int, int] | None = Field(
        default=None, description="Picture size of pose files that do not tell it."
    )
    identities: list[Path] = Field(
        default_factory=list,
        description="Portrait whose identity the k-th person gets. Left out: the face in the"
        " picture.",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="Where the networks work."
    )
    out: Path = Field(default=Path("animation.mp4"), description="The mp4 to write.")
    report_dir: Path | None = Field(
        default=None,
        description="Folder for alignment.png (overlay, before the start), contact_sheet.png,"
        " report.json and previews. Left out: none.",
    )
    save_poses: Path | None = Field(
        default=None, description="Write the driving poses (.json, .npz). Left out: none."
    )
    force: bool = Field(
        default=False,
        description="Go on where memory is short or the pose does not fit. Left out: refuse.",
    )

    def check_paths(self) -> None:
        """Refuse what can be told from the paths alone.

        Raises:
            UsageError: A file or folder is missing, or a name has another suffix.
        """
        for path in (self.image, *self.identities):
            if not path.is_file():
                raise UsageError(f"There is no file {path}.")
        if not (self.driving.is_file() or is_pose_file(self.driving)):
            raise UsageError(f"There is no file {self.driving}.")
        if self.out.suffix.lower() != ".mp4":
            raise UsageError(f"The result is an mp4; --out must end in .mp4, got {self.out.name}.")
        for target in (self.out, self.save_poses, self.report_dir):
            if target is None:
                continue
            folder = target.absolute().parent
            if not folder.is_dir():
                raise UsageError(f"There is no folder {folder} for {target}.", fix="Make it first.")
            check_folder(target if target.is_dir() else folder, f"{target}")
        if self.save_poses is not None:
            from animaray.models.subjects.pose_files import check_pose_file_name

            check_pose_file_name(self.save_poses)

    def frame_rate(self, source_fps: float | None, model_fps: float) -> float:
        """Return the frame rate that the user wants.

        Args:
            source_fps: Of the driving motion, where it tells one.
            model_fps: What the animator was trained at.

        Raises:
            UsageError: The source's is wanted and not known.
        """
        fps = self.options.frame_rate(source_fps, model_fps)
        if fps is None:
            raise UsageError(
                "The driving motion does not tell its frame rate.",
                fix="Add --fps with frames per second.",
            )
        return fps
