"""API keys: each belongs to one tenant, and only its SHA-256 is stored.

The file is JSON, tenant -> hexadecimal SHA-256 of the key. Without a file the service is open and
everybody is the tenant "public", which is only fit for the loopback address.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping
from pathlib import Path

from animaray.platform.errors import ConfigError
from animaray.platform.storage import read_json

PUBLIC_TENANT = "public"
_TENANT_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


def make_api_key() -> tuple[str, str]:
    """Return a new API key and the digest to store for it."""
    key = f"ar_{secrets.token_urlsafe(32)}"
    return key, digest_api_key(key)


def digest_api_key(key: str) -> str:
    """Return the hexadecimal SHA-256 of an API key."""
    return hashlib.sha256(key.encode()).hexdigest()


class Tenants:
    """Tell whose key a request carries.

    Args:
        digests: Tenant -> digest of its key; empty means that everybody is welcome.
    """

    def __init__(self, digests: Mapping[str, str]) -> None:
        for tenant, digest in digests.items():
            if not _TENANT_NAME.fullmatch(tenant) or not _DIGEST.fullmatch(digest):
                raise ConfigError(
                    f"Expected tenant -> SHA-256 (64 hexadecimal digits), got `{tenant}`.",
                    fix="Make keys with animaray.serving.tenants.make_api_key().",
                )
        self._digests = dict(digests)

    @classmethod
    def load(cls, path: Path | None) -> "Tenants":
        """Read the key file; None gives the open service.

        Raises:
            ConfigError: The file is not a mapping of tenants to digests, or is empty.
        """
        if path is None:
            return cls({})
        digests = read_json(path)
        if not isinstance(digests, dict) or not digests:
            raise ConfigError(f"{path} must map at least one tenant to the digest of its key.")
        return cls({str(tenant): str(digest) for tenant, digest in digests.items()})

    @property
    def is_open(self) -> bool:
        """Tell whether no key is asked for."""
        return not self._digests

    def tenant_of(self, key: str | None) -> str | None:
        """Return whose key this is, or None when it is nobody's; takes equally long for all."""
        if self.is_open:
            return PUBLIC_TENANT
        given = digest_api_key(key or "")
        found = None
        for tenant, digest in self._digests.items():
            if hmac.compare_digest(given, digest):
                found = tenant
        return found
