"""API keys belong to tenants; only digests are stored."""

import json
from pathlib import Path

import pytest

from animaray.platform.errors import ConfigError, DatasetError
from animaray.serving.tenants import PUBLIC_TENANT, Tenants, digest_api_key, make_api_key


def test_key_names_its_tenant_and_no_other(tmp_path: Path) -> None:
    (key_a, digest_a), (key_b, digest_b) = make_api_key(), make_api_key()
    file = tmp_path / "keys.json"
    file.write_text(json.dumps({"a": digest_a, "b": digest_b}))
    tenants = Tenants.load(file)
    assert not tenants.is_open
    assert (tenants.tenant_of(key_a), tenants.tenant_of(key_b)) == ("a", "b")
    assert tenants.tenant_of("guess") is None
    assert tenants.tenant_of(None) is None
    assert key_a not in file.read_text()


def test_without_a_file_the_service_is_open() -> None:
    tenants = Tenants.load(None)
    assert tenants.is_open
    assert tenants.tenant_of(None) == PUBLIC_TENANT


def test_digest_is_sha256() -> None:
    # SHA-256 of "abc", from FIPS 180-2, appendix B.1.
    assert digest_api_key("abc") == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "must map at least one tenant"),
        ('["a"]', "must map at least one tenant"),
        ('{"a": "a plain key"}', "Expected tenant -> SHA-256.*got `a`"),
        ('{"../x": "' + "0" * 64 + '"}', "got `../x`"),
    ],
)
def test_wrong_key_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "keys.json"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        Tenants.load(file)


def test_missing_key_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="Cannot read"):
        Tenants.load(tmp_path / "keys.json")
