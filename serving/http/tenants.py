"""API keys: each belongs to one tenant, and only its SHA-256 is stored.

The file is JSON, tenant -> hexadecimal SHA-256 of the key, written by `animaray keys`. A running
server reads it again when it changes. Without a file the service is open and everybody is the
tenant "public", which is only fit for the loopback address.
"""

import hashlib
import hmac
import logging
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from animaray.platform.errors import AnimarayError, ConfigError, UsageError
from animaray.platform.storage import read_json, write_json_atomic

PUBLIC_TENANT = "public"

_TENANT_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_PRIVATE_MODE = 0o600

_log = logging.getLogger("animaray.serving")


def make_api_key() -> tuple[str, str]:
    """Return a new API key and the digest to store for it."""
    key = f"ar_{secrets.token_urlsafe(32)}"
    return key, digest_api_key(key)


def digest_api_key(key: str) -> str:
    """Return the hexadecimal SHA-256 of an API key."""
    return hashlib.sha256(key.encode()).hexdigest()


def read_key_file(path: Path) -> dict[str, str]:
    """Return tenant -> digest.

    Raises:
        ConfigError: There is no such file, or it is not a mapping of tenants to digests.
    """
    if not path.is_file():
        raise ConfigError(
            f"There is no file of API keys {path}.",
            fix=f"Make a key with `animaray keys new me --file {path}`.",
        )
    digests = read_json(path)
    if not isinstance(digests, dict):
        raise ConfigError(f"{path} must map tenants to the digests of their keys.")
    _check_digests(digests, str(path))
    return digests


def add_key(path: Path, tenant: str) -> str:
    """Make a key for a new tenant, store its digest, and return the key: nobody can read it again.

    Args:
        path: Key file; made if it is not there.
        tenant: Whose jobs the key opens.

    Raises:
        UsageError: The name is not fit, or the tenant has a key.
    """
    if not _TENANT_NAME.fullmatch(tenant):
        raise UsageError(
            f"A tenant's name has lower-case letters, digits, - and _ (63 at most), got"
            f" `{tenant[:64]}`."
        )
    digests = read_key_file(path) if path.exists() else {}
    if tenant in digests:
        raise UsageError(
            f"`{tenant}` has a key in {path}.",
            fix=f"To change it, first `animaray keys revoke {tenant} --file {path}`.",
        )
    key, digests[tenant] = make_api_key()
    write_json_atomic(path, digests, mode=_PRIVATE_MODE)
    return key


def revoke_key(path: Path, tenant: str) -> None:
    """Forget a tenant's key; the tenant's jobs stay.

    Raises:
        UsageError: The tenant has none.
    """
    digests = read_key_file(path)
    if tenant not in digests:
        known = ", ".join(digests) or "nobody has a key"
        raise UsageError(f"`{tenant}` has no key in {path}.", fix=f"Known: {known}.")
    del digests[tenant]
    write_json_atomic(path, digests, mode=_PRIVATE_MODE)


class Tenants:
    """Tell whose key a request carries.

    Args:
        digests: Tenant -> digest of its key; None means that everybody is welcome.
        path: File to read again when it changes, or None.
    """

    def __init__(self, digests: Mapping[str, str] | None, path: Path | None = None) -> None:
        _check_digests(digests or {}, "the keys")
        self._digests = None if digests is None else dict(digests)
        self._path = path
        self._version = _version_of(path)

    @classmethod
    def load(cls, path: Path | None) -> "Tenants":
        """Read the key file; None gives the open service.

        Raises:
            ConfigError: The file is missing, no mapping of tenants to digests, or empty.
        """
        if path is None:
            return cls(None)
        tenants = cls(None, path)  # notes the file's version before its content
        tenants._digests = read_key_file(path)
        if not tenants._digests:
            raise ConfigError(
                f"{path} holds no key, so nobody could use the service.",
                fix=f"Make one with `animaray keys new me --file {path}`.",
            )
        return tenants

    @property
    def is_open(self) -> bool:
        """Tell whether no key is asked for."""
        return self._digests is None

    def tenant_of(self, key: str | None) -> str | None:
        """Return whose key this is, or None when it is nobody's; takes equally long for all."""
        self._read_again()
        if self._digests is None:
            return PUBLIC_TENANT
        given = digest_api_key(key or "")
        found = None
        for tenant, digest in self._digests.items():
            if hmac.compare_digest(given, digest):
                found = tenant
        return found

    def _read_again(self) -> None:
        """Take over a changed key file; while it is missing or damaged, the old keys hold."""
        version = _version_of(self._path)
        if self._path is None or version == self._version:
            return
        self._version = version
        try:
            self._digests = read_key_file(self._path)
        except AnimarayError as error:
            _log.warning("The keys read before stay in force: %s", error)
        else:
            _log.warning("Read %d API keys from %s.", len(self._digests), self._path)


def _version_of(path: Path | None) -> tuple[int, int, int] | None:
    """Return what changes with a file's content, or None while there is no file."""
    try:
        found = None if path is None else path.stat()
    except OSError:
        return None
    return None if found is None else (found.st_mtime_ns, found.st_size, found.st_ino)


def _check_digests(digests: Mapping[Any, Any], where: str) -> None:
    for tenant, digest in digests.items():
        is_digest = isinstance(digest, str) and _DIGEST.fullmatch(digest)
        if not is_digest or not _TENANT_NAME.fullmatch(str(tenant)):
            raise ConfigError(
                f"Expected tenant -> SHA-256 (64 hexadecimal digits) in {where}, got `{tenant}`.",
                fix="Make keys with `animaray keys new me`.",
            )
