"""animaray: a Ray-distributed platform for identity-preserving human image animation.

What a program of yours imports is named here (docs/python.md shows it at work); everything else
may change. `import animaray` loads none of it: torch, Ray and the rest come with the first use of
a name that needs them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from animaray.datasets.reader import CurationDataset as CurationDataset
    from animaray.datasets.windows import TrainingWindows as TrainingWindows
    from animaray.models.animation.engines import DrivingFrames as DrivingFrames
    from animaray.models.animation.engines import load_engine as load_engine
    from animaray.models.animation.pipeline import Animation as Animation
    from animaray.models.animation.pipeline import AnimationOptions as AnimationOptions
    from animaray.models.animation.pipeline import AnimationPipeline as AnimationPipeline
    from animaray.models.parts.options import PartsOptions as PartsOptions
    from animaray.pipelines.curate import CurationConfig as CurationConfig
    from animaray.pipelines.curate import CurationSummary as CurationSummary
    from animaray.pipelines.curate import curate as curate
    from animaray.pipelines.encode.config import EncodeConfig as EncodeConfig
    from animaray.pipelines.encode.encode import EncodeSummary as EncodeSummary
    from animaray.pipelines.encode.encode import encode_dataset as encode
    from animaray.platform import errors as errors
    from animaray.platform.errors import AnimarayError as AnimarayError
    from animaray.platform.media.video import decode_video as decode_video
    from animaray.platform.media.video import read_picture as read_picture
    from animaray.platform.media.video import write_mp4 as write_mp4
    from animaray.platform.weights.store import resolve_weights as resolve_weights
    from animaray.serving.client import AnimarayClient as Client
    from animaray.serving.client import JobHandle as JobHandle
    from animaray.training import recipes as recipes
    from animaray.training.aligner import AlignerTrainingConfig as AlignerTrainingConfig
    from animaray.training.aligner import train_aligner as train_aligner
    from animaray.training.animator import train_animator as train_animator
    from animaray.training.configs import AnimatorTrainingConfig as AnimatorTrainingConfig
    from animaray.training.launch import TrainResult as TrainResult

__version__ = "0.1.0"

_HOMES = {
    "AlignerTrainingConfig": "training.aligner",
    "AnimarayError": "platform.errors",
    "Animation": "models.animation.pipeline",
    "AnimationOptions": "models.animation.pipeline",
    "AnimationPipeline": "models.animation.pipeline",
    "AnimatorTrainingConfig": "training.configs",
    "Client": "serving.client:AnimarayClient",
    "CurationConfig": "pipelines.curate",
    "CurationDataset": "datasets.reader",
    "CurationSummary": "pipelines.curate",
    "DrivingFrames": "models.animation.engines",
    "EncodeConfig": "pipelines.encode.config",
    "EncodeSummary": "pipelines.encode.encode",
    "JobHandle": "serving.client",
    "PartsOptions": "models.parts.options",
    "TrainResult": "training.launch",
    "TrainingWindows": "datasets.windows",
    "curate": "pipelines.curate",
    "decode_video": "platform.media.video",
    "encode": "pipelines.encode.encode:encode_dataset",
    "errors": "platform.errors:",
    "load_engine": "models.animation.engines",
    "read_picture": "platform.media.video",
    "recipes": "training.recipes:",
    "resolve_weights": "platform.weights.store",
    "train_aligner": "training.aligner",
    "train_animator": "training.animator",
    "write_mp4": "platform.media.video",
}
"""Where each name lives; after a colon its name there, nothing for the module itself."""

__all__ = [
    "AlignerTrainingConfig",
    "AnimarayError",
    "Animation",
    "AnimationOptions",
    "AnimationPipeline",
    "AnimatorTrainingConfig",
    "Client",
    "CurationConfig",
    "CurationDataset",
    "CurationSummary",
    "DrivingFrames",
    "EncodeConfig",
    "EncodeSummary",
    "JobHandle",
    "PartsOptions",
    "TrainResult",
    "TrainingWindows",
    "__version__",
    "curate",
    "decode_video",
    "encode",
    "errors",
    "load_engine",
    "read_picture",
    "recipes",
    "resolve_weights",
    "train_aligner",
    "train_animator",
    "write_mp4",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - each name has its own type, seen above
    """Load a public name at its first use.

    Raises:
        AttributeError: There is no such name.
    """
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module_name, colon, attribute = _HOMES[name].partition(":")
    module = import_module(f"{__name__}.{module_name}")
    found = module if colon and not attribute else getattr(module, attribute or name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    """Return the public names, loaded or not."""
    return sorted({*globals(), *__all__})
