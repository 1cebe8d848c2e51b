"""One row of the weights registry: what a weights file is, whence it comes, who may use it."""

from dataclasses import dataclass

BUNDLED = "bundled"
"""Source of files that are shipped inside the package."""
HUGGINGFACE = "huggingface:"
"""Prefix of sources of the form huggingface:owner/name/path/in/repository."""
INDEX = "index:"
"""Prefix of sources of the form index:package==version:path/in/the/distribution."""
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
    """`bundled`, `huggingface:owner/name/path`, `index:package==version:path`,
    `converted:<address>` or an https address."""
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
    published_as: tuple[str, ...] = ()
    """Other names that the file has in the authors' own folder of checkpoints."""
    archive_bytes: int | None = None
    """Size of the downloaded archive, for sources that are one; None elsewhere."""
    archive_sha256: str | None = None
    """SHA-256 of that archive; None elsewhere."""
    distribution: str | None = None
    """File name of the wheel or sdist on a package index; None for other sources."""
    beside: tuple[str, ...] = ()
    """Ids of the files without which this one is of no use: messages name them together."""
    revision: str | None = None
    """Commit of the Hugging Face repository; None takes its newest."""
    confirmed_by: str | None = None
    """Where source, size, hash and licence were looked up, or how they were measured; None where
    they could not be confirmed."""

    @property
    def is_confirmed(self) -> bool:
        """Whether the facts of this row were looked up or measured, not only remembered."""
        return self.confirmed_by is not None

    @property
    def is_archive(self) -> bool:
        """Whether the source delivers an archive: a zip for the folder `file`, or a distribution.

        Of a distribution (`index:`) the one file that the source names is unpacked.
        """
        return self.source.endswith(".zip") or self.source.startswith(INDEX)

    @property
    def origin(self) -> str:
        """Whence the file comes, for people."""
        in_index = self.distribution is not None
        return f"{self.distribution} of the package index" if in_index else self.source

    @property
    def package(self) -> str:
        """Name of the package of a distribution; empty for other sources."""
        return self._in_index()[0].partition("==")[0]

    @property
    def path_in_distribution(self) -> str:
        """Where the file lies in a distribution; empty for other sources."""
        return self._in_index()[2]

    def _in_index(self) -> tuple[str, str, str]:
        source = self.source if self.source.startswith(INDEX) else ""
        return source.removeprefix(INDEX).partition(":")

    @property
    def download_bytes(self) -> int | None:
        """Size of what the source delivers, or None where it is not known."""
        return self.archive_bytes if self.is_archive else self.size_bytes

    @property
    def download_sha256(self) -> str | None:
        """SHA-256 of what the source delivers, or None where it is not known."""
        return self.archive_sha256 if self.is_archive else self.sha256
