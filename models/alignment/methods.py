"""The ways of moving a driving pose onto the person of a picture. Loads nothing heavy."""

from typing import Literal

AlignmentMethod = Literal["none", "fit", "procrustes", "learned"]
"""none        the driving pose as it is
fit         the released code's: scale and shift from a few keypoints
procrustes  turn, scale and shift of least squares
learned     turn, scale and shift from the trained aligner"""
TransformScope = Literal["clip", "frame"]
"""One transform for the whole clip, or one per frame."""
