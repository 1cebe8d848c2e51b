"""Notice that a run diverges, lose nothing by it, and say what to do in the same run folder.

A step whose gradient is not finite is skipped by the engine and counted here; several in a row
mean that no later step will be better, and stop the run. Nothing that is not finite is ever saved,
so the newest checkpoint is one from which training goes on.
"""

import math
from typing import NoReturn

from animaray.platform.errors import RunError
from animaray.training.checkpoints import checkpoint_folders, set_aside
from animaray.training.configs import OptimizerConfig, ScaleConfig
from animaray.training.run_folder import DIVERGED, RunFolder

MAX_SKIPPED_IN_A_ROW = 5
"""Steps without a finite gradient after which the weights, not the batch, are to blame."""


class DivergenceGuard:
    """Counts skipped steps; all ranks see the same gradient norm, so all decide the same."""

    def __init__(
        self,
        folder: RunFolder,
        optimizer: OptimizerConfig,
        scale: ScaleConfig,
        *,
        is_first: bool,
        num_skipped: int = 0,
    ) -> None:
        self._folder, self._optimizer, self._scale = folder, optimizer, scale
        self._is_first = is_first
        self._in_a_row = 0
        self.num_skipped = num_skipped
        """Steps skipped since the run began."""

    @property
    def is_skipping(self) -> bool:
        """Whether the last step was skipped: the weights may be the reason, so do not save them."""
        return self._in_a_row > 0

    def counts(self, step: int, grad_norm: float) -> bool:
        """Return whether optimizer step `step` (from 0) moved the weights.

        Raises:
            RunError: Too many steps in a row did not.
        """
        if math.isfinite(grad_norm):
            self._in_a_row = 0
            return True
        self._in_a_row += 1
        self.num_skipped += 1
        if self._in_a_row == MAX_SKIPPED_IN_A_ROW:
            first = step + 1 - self._in_a_row
            self.stop(
                f"The loss or its gradient is not finite since step {first + 1}"
                f" ({self._in_a_row} steps in a row).",
                bad_step=first,
            )
        return False

    def stop(self, what: str, *, bad_step: int) -> NoReturn:
        """Stop the run with advice that works in its folder.

        Args:
            bad_step: Number of optimizer steps in the weights that lead there; a checkpoint of
                just these weights is set aside.

        Raises:
            RunError: Always.
        """
        folders = checkpoint_folders(self._folder.checkpoints_dir)
        good = [path for step, path in folders.items() if step < bad_step]
        if self._is_first and bad_step in folders:
            set_aside(folders[bad_step])
        place = (
            f"The last good checkpoint is {good[-1]}." if good else "There is no good checkpoint."
        )
        goes_on = f"goes on from step {int(good[-1].name[5:])}" if good else "starts at step 0"
        advice = f"--set optimizer.lr={self._optimizer.lr / 10:g}"
        if self._scale.precision != "float32":
            advice += " --set scale.precision=float32"
        raise RunError(
            f"{what} {place}",
            fix=f"Repeat the same command with {advice}: it {goes_on} in this run folder.",
            reason=DIVERGED,
        )
