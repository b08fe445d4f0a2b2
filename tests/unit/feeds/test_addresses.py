from ipaddress import ip_address

import pytest

from pals_grid.core.errors import FeedRejected
from pals_grid.feeds.addresses import AddressRule, is_public, look_up, read_network


@pytest.mark.parametrize(
    "text",
    [
        "0.0.0.0",
        "10.0.0.1",
        "100.64.0.1",
        "100.100.100.200",
        "127.0.0.1",
        "127.255.255.254",
        "168.63.129.16",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.192",
        "192.168.1.1",
        "198.18.0.1",
        "224.0.0.1",
        "239.255.255.250",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::10.0.0.1",
        "64:ff9b:1::10.0.0.1",
        "2001:db8::1",
        "2002:7f00:1::1",
        "2002:a00:1::1",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fec0::1",
        "ff02::1",
        "5f00::1",
    ],
)
def test_no_address_of_the_inside_is_public(text: str) -> None:
    assert not is_public(ip_address(text))
    assert not AddressRule().permits(text)


@pytest.mark.parametrize(
    "text",
    ["8.8.8.8", "172.32.0.1", "100.128.0.1", "2600::1", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8"],
)
def test_addresses_of_the_internet_are_public(text: str) -> None:
    assert is_public(ip_address(text))


def test_what_the_operator_allows_is_permitted_and_no_more() -> None:
    rule = AddressRule((read_network("10.1.0.0/16"), read_network("fd00:1::/32")))
    assert rule.permits("10.1.2.3")
    assert rule.permits("::ffff:10.1.2.3")
    assert rule.permits("fd00:1::7")
    assert rule.permits("8.8.8.8")
    assert not rule.permits("10.2.0.1")
    assert not rule.permits("fe80::1%eth0")
    assert rule.require("h", ["10.2.0.1", "10.1.0.1"]) == ["10.1.0.1"]
    with pytest.raises(FeedRejected, match=r"h leads to 10\.2\.0\.1, which is not on the public"):
        rule.require("h", ["10.2.0.1"])


@pytest.mark.parametrize("text", ["2130706433", "0x7f.1", "0177.0.0.1", "127.1"])
def test_other_spellings_of_loopback_are_looked_up_to_it(text: str) -> None:
    assert not any(AddressRule().permits(found) for found in look_up(text, 80))
