"""API keys belong to tenants; only digests are stored."""

import json
from pathlib import Path

import pytest

from animaray.platform.errors import ConfigError
from animaray.serving.http.tenants import (
    PUBLIC_TENANT,
    Tenants,
    add_key,
    digest_api_key,
    make_api_key,
    revoke_key,
)


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
        ("{}", "holds no key"),
        ('["a"]', "must map tenants"),
        ('{"a": 5}', "got `a`"),
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
    with pytest.raises(ConfigError, match=r"no file of API keys.*animaray keys new me --file"):
        Tenants.load(tmp_path / "keys.json")


def test_running_server_takes_new_keys_over_and_drops_revoked_ones(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    first = add_key(file, "a")
    tenants = Tenants.load(file)
    second = add_key(file, "b")
    assert (tenants.tenant_of(first), tenants.tenant_of(second)) == ("a", "b")
    revoke_key(file, "a")
    assert (tenants.tenant_of(first), tenants.tenant_of(second)) == (None, "b")
    revoke_key(file, "b")
    assert tenants.tenant_of(second) is None
    assert not tenants.is_open  # no key is not the same as no file of keys
    assert tenants.tenant_of(None) is None


def test_damaged_or_missing_key_file_leaves_the_old_keys_in_force(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "keys.json"
    key = add_key(file, "a")
    tenants = Tenants.load(file)
    for text in ("{", '{"a": "plain"}'):
        file.write_text(text)
        assert tenants.tenant_of(key) == "a"
    file.unlink()
    assert tenants.tenant_of(key) == "a"
    assert tenants.tenant_of(None) is None
    assert caplog.text.count("stay in force") == 3


def test_key_file_is_for_its_owner_only(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    for name in ("a", "b"):
        add_key(file, name)
        assert file.stat().st_mode & 0o777 == 0o600
    revoke_key(file, "a")
    assert file.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["keys.json"]
