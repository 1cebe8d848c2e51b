"""The tree of all errors that animaray raises on purpose.

    AnimarayError
    +-- UsageError            a call, option or path is wrong                     exit 2
    |   +-- ConfigError       a setting is unknown or out of range                exit 2
    |   +-- PersonChoiceError several people, and none or the wrong one is chosen exit 2
    +-- MachineError          this machine lacks something                        exit 4
    |   +-- WeightsError      a weights file is missing, damaged or of another kind
    |   +-- DiskError         a disk is full or may not be written
    |   +-- StoreError        an object store cannot be reached or refuses us
    |   +-- PortError         a network port is taken
    +-- RefusedError          a check refused the input                           exit 5
    |   +-- MediaError        a video or picture cannot be used
    |   |   +-- DecoderDiedError  its decoder died or hung: another try may succeed
    |   +-- FaceError         no usable face
    |   +-- PoseError         no usable pose, or it does not fit
    |   +-- MemoryNeedError   the work needs more memory than there is
    |   +-- DatasetError      a dataset folder is damaged or of another version
    |   +-- RunError          a run folder belongs to another configuration
    +-- ServiceError          a remote service failed or refused                  exit 6

Every message says what was expected, what came and what to do; `fix` holds the command or the
change that helps. Exit codes follow docs/cli.md.
"""

from collections.abc import Mapping
from typing import Any


class AnimarayError(Exception):
    """Report a foreseen failure: what happened, and what to do about it."""

    error_id: str = "AR-BUG-01"
    exit_code: int = 1

    def __init__(self, message: str, *, fix: str | None = None, reason: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix
        self.reason = reason
        """Closed-list reason code of the failure (for tables and metrics), or None."""

    def __str__(self) -> str:
        """Return message, remedy and id on one line."""
        remedy = f" {self.fix}" if self.fix else ""
        return f"{self.message}{remedy} [{self.error_id}]"

    def to_dict(self) -> dict[str, Any]:
        """Return plain data from which another process makes the same error."""
        return {
            "error_id": self.error_id,
            "message": self.message,
            "fix": self.fix,
            "reason": self.reason,
        }

    def __reduce__(self) -> tuple[object, ...]:
        """Keep all parts, those of child classes too, when an error crosses a process border."""
        return _rebuild, (type(self), self.args, vars(self))


def error_classes(kind: type[AnimarayError] = AnimarayError) -> list[type[AnimarayError]]:
    """Return an error class and all known ones below it that have an id of their own."""
    own = [kind] if "error_id" in vars(kind) else []
    return own + [found for child in kind.__subclasses__() for found in error_classes(child)]


def _rebuild(
    kind: type[AnimarayError], arguments: tuple[Any, ...], parts: dict[str, Any]
) -> AnimarayError:
    error = kind.__new__(kind, *arguments)
    vars(error).update(parts)
    return error


def error_from_dict(data: Mapping[str, Any]) -> AnimarayError:
    """Return the error that `AnimarayError.to_dict` described."""
    kinds = {kind.error_id: kind for kind in reversed(error_classes())}
    kind = kinds.get(str(data.get("error_id")), AnimarayError)
    return kind(str(data["message"]), fix=data.get("fix"), reason=data.get("reason"))


class UsageError(AnimarayError):
    """A command, option, path or request is wrong."""

    error_id = "AR-USE-01"
    exit_code = 2


class ConfigError(UsageError):
    """A setting is unknown, of the wrong type or out of range."""

    error_id = "AR-CFG-01"


class PersonChoiceError(UsageError):
    """Several people are seen and the choice of one is missing, unknown or ambiguous."""

    error_id = "AR-PER-01"


class MachineError(AnimarayError):
    """This machine or cluster lacks something that the work needs."""

    error_id = "AR-MCH-01"
    exit_code = 4


class WeightsError(MachineError):
    """A weights file is missing, damaged or of another architecture."""

    error_id = "AR-WGT-01"


class DiskError(MachineError):
    """A disk is full, read-only or not ours to write; what was complete stays."""

    error_id = "AR-DSK-01"


class PortError(MachineError):
    """A network port is taken or not allowed."""

    error_id = "AR-NET-01"


class RefusedError(AnimarayError):
    """A check refused the input; nothing was changed."""

    error_id = "AR-REF-01"
    exit_code = 5


class MediaError(RefusedError):
    """A video or picture is missing, unreadable or outside the limits."""

    error_id = "AR-MED-01"


class DecoderDiedError(MediaError):
    """The decoder of a video died or hung without an answer; another try may succeed."""

    error_id = "AR-MED-02"


class FaceError(RefusedError):
    """A picture shows no usable face."""

    error_id = "AR-FAC-01"


class PoseError(RefusedError):
    """A picture or video shows no usable pose, or too few keypoints to fit."""

    error_id = "AR-POS-01"


class MemoryNeedError(RefusedError):
    """The work would need more memory than the machine has; nothing was started."""

    error_id = "AR-MEM-01"


class DatasetError(RefusedError):
    """A dataset folder is missing, damaged or of another schema version."""

    error_id = "AR-DAT-01"


class RunError(RefusedError):
    """A run folder belongs to another configuration or is damaged."""

    error_id = "AR-RUN-01"


class StoreError(MachineError):
    """An object store cannot be reached, refuses our keys or has no such bucket."""

    error_id = "AR-STO-01"


class ServiceError(AnimarayError):
    """A remote service failed, refused or answered something unexpected."""

    error_id = "AR-SRV-01"
    exit_code = 6
