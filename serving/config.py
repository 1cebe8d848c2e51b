"""What to serve, where, and how much: the settings of a server. Loads nothing heavy."""

import ipaddress
import os
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from animaray.platform.errors import ConfigError
from animaray.platform.options import Options
from animaray.serving.jobs.limits import ServingLimits

DEFAULT_KEY_FILE = Path("api-keys.json")
INGRESS_CPUS = 0.1


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", defer_build=True))
class ServeConfig(Options):
    """What to serve, where, and how much."""

    weights_dir: Path = Field(
        description="Weights folder that training wrote. Left out: the small bundled animator."
    )
    host: str = Field(
        default="127.0.0.1",
        description="Address to bind; beyond this machine only with `api_keys_path`.",
    )
    port: int = Field(default=8500, ge=1, le=65535, description="Port to bind.")
    data_dir: Path = Field(
        default=Path("serving-data"),
        description="Folder of jobs, uploads and results; with several machines, one that all of"
        " them see. One that holds foreign files is refused.",
    )
    database_url: str | None = Field(
        default=None,
        description="Job database, such as postgresql+psycopg://user@host/name; with several"
        " machines use PostgreSQL. Left out: jobs.sqlite in `data_dir`.",
    )
    api_keys_path: Path | None = Field(
        default=None,
        description="Key file that `animaray keys new` wrote. Left out: none, everybody may.",
    )
    num_replicas: int = Field(
        default=1,
        ge=1,
        description="Animator replicas, each with a model and one job at a time.",
    )
    num_cpus_per_replica: float = 1.0
    """Logical CPUs that Ray reserves for each replica."""
    num_gpus_per_replica: float | None = Field(
        default=None,
        ge=0.0,
        description="GPUs of each replica; 0.5 lets two replicas share one. Left out: 1 where"
        " `device` is cuda, else 0.",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto",
        description="Where the networks work; `auto`: on the GPU where `num_gpus_per_replica`"
        " reserves one.",
    )
    num_threads: int | None = Field(
        default=None, ge=1, description="CPU threads of each replica. Left out: the cores, shared."
    )
    lease_s: float = Field(default=30.0, ge=2.0)
    """A job whose worker is silent for so long is given to another."""
    worker_timeout_s: float = 6.0
    """A worker that is silent for so long no longer counts as ready."""
    drain_s: float = Field(
        default=0.0,
        ge=0.0,
        description="Seconds that a job may go on when the server stops, before it is given back.",
    )
    ready_timeout_s: float | None = 600.0
    """Seconds to wait for a loaded model at the start; None returns at once."""
    allowed_hosts: tuple[str, ...] = ()
    """Host names of a proxy in front, which an open service answers to beside the loopback ones."""
    limits: ServingLimits = Field(default_factory=ServingLimits)
    """Caps on requests."""

    def __post_init__(self) -> None:
        """Refuse settings that cannot work.

        Raises:
            ConfigError: Device and GPUs contradict, or an open service would be public.
        """
        if self.device == "cpu" and self.gpus_per_replica > 0:
            raise ConfigError(
                f"Setting `device` is cpu, but `num_gpus_per_replica` is {self.gpus_per_replica:g}."
            )
        if self.device == "cuda" and self.gpus_per_replica == 0:
            raise ConfigError(
                "Setting `device` is cuda, but `num_gpus_per_replica` is 0.",
                fix="Leave it out, or set it above 0: `--gpus 1`.",
            )
        if self.api_keys_path is None and not is_loopback(self.host):
            raise ConfigError(
                f"Serving on {self.host} without API keys would let everybody in.",
                fix="Make a key with `animaray keys new me` and start with"
                f" `--api-keys {DEFAULT_KEY_FILE}` as well; or bind 127.0.0.1 and put a proxy in"
                " front.",
            )

    @property
    def url(self) -> str:
        """Address of the service as seen from this machine."""
        host = "127.0.0.1" if self.host in ("0.0.0.0", "") else self.host  # noqa: S104
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    @property
    def threads(self) -> int:
        """CPU threads of each replica's networks."""
        return self.num_threads or max(1, (os.cpu_count() or 1) // self.num_replicas)

    @property
    def gpus_per_replica(self) -> float:
        """GPUs that Ray reserves for each replica."""
        if self.num_gpus_per_replica is not None:
            return self.num_gpus_per_replica
        return 1.0 if self.device == "cuda" else 0.0

    @property
    def torch_device(self) -> str:
        """Where the networks work, as torch names it."""
        return "cuda" if self.gpus_per_replica > 0 else "cpu"

    @property
    def logical_cpus(self) -> float:
        """CPUs that the service reserves of a Ray session."""
        return self.num_replicas * self.num_cpus_per_replica + INGRESS_CPUS

    @property
    def store_url(self) -> str:
        """Address of the job database."""
        return self.database_url or f"sqlite:///{self.data_dir.absolute()}/jobs.sqlite"


def is_loopback(host: str) -> bool:
    """Tell whether a name or address, without port or brackets, means this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        name = host.lower().rstrip(".")
        return name == "localhost" or name.endswith(".localhost")
