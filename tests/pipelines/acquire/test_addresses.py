"""Which addresses are public, in all their spellings."""

import asyncio

import pytest

from animaray.pipelines.acquire.addresses import is_public, resolve, split_url
from animaray.platform.errors import RefusedError


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.8.8.8", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254",
        "0.0.0.0", "100.64.0.1", "192.0.2.1", "198.18.0.1", "224.0.0.1", "255.255.255.255",  # noqa: S104 - asked, not bound
        "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "ff02::1", "::ffff:127.0.0.1",
        "::ffff:10.0.0.1", "2002:7f00:1::", "64:ff9b::7f00:1", "64:ff9b::a00:1",
        "2001:0:7f00:1::80ff:fffe", "/run/a.sock", "localhost", "",
    ],
)  # fmt: skip
def test_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["93.184.216.34", "8.8.8.8", "2606:4700::1", "::ffff:8.8.8.8"])
def test_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.1/", "http://2130706433/", "http://0x7f000001/", "http://0177.0.0.1/",
        "http://localhost/", "http://[::1]/", "http://[::ffff:127.0.0.1]/", "http://0/",
    ],
)  # fmt: skip
def test_every_spelling_of_this_machine_is_refused(url: str) -> None:
    _, host, port = split_url(url)
    with pytest.raises(RefusedError) as caught:
        asyncio.run(resolve(host, port, allow_private=False))
    assert caught.value.reason == "refused_address"


@pytest.mark.parametrize(
    "url",
    ["file:///etc/passwd", "ftp://a.example/v.mp4", "http://", "http://a:b@c.example/", "gopher:x",
     "http://a.example:99999/"],
)  # fmt: skip
def test_only_plain_web_addresses(url: str) -> None:
    with pytest.raises(RefusedError) as caught:
        split_url(url)
    assert caught.value.reason == "bad_address"
