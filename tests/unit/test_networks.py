"""Networks in settings and orders, and the set that answers whether an address is in them."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from linepool.ipc.board import Bans, Board, MasterView
from linepool.kernel.address_set import AddressSet
from linepool.settings.networks import parsed_networks


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("10.0.0.0/255.0.0.0", "10.0.0.0/8"),
        ("192.0.2.7/32", "192.0.2.7"),
        ("2001:DB8::/32", "2001:db8::/32"),
        ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("::/0", "::/0"),
        ("unix", "unix"),
    ],
)
def test_a_network_is_written_in_one_way(text, network):
    assert parsed_networks([text]) == (network,)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("10.1.2.3/8", "10.1.2.3/8 has bits set behind its prefix; it is 10.0.0.0/8 or 10.1.2.3"),
        ("fe80::1%eth0", "a scope has no place here: leave out %eth0"),
        ("localhost", "localhost is a name: give its addresses"),
        ("010.0.0.1", "010.0.0.1 is not an address"),
        ("10.0.0.0/33", "the prefix must be 0 to 32, not '33'"),
        ("::/129", "the prefix must be 0 to 128, not '129'"),
        ("*", "all addresses are 0.0.0.0/0 and ::/0"),
        ("10.0.0.1:7000", "10.0.0.1:7000 must be written without brackets and port"),
        ("[::1]", "[::1] must be written without brackets and port"),
        ("unix:/run/x", "unix, alone, stands for all unix sockets"),
        ("", "an empty text is not an address"),
    ],
)
def test_what_is_not_a_network_is_refused_with_the_reason(text, why):
    with pytest.raises(ValueError, match=r"^addresses, networks such as") as error:
        parsed_networks(["192.0.2.1", text])
    assert str(error.value).endswith(f"; {why}")


def _network(bits: int, prefix: int, kind: type[IPv4Network] | type[IPv6Network]) -> str:
    return str(kind((bits >> prefix << prefix, kind((0, 0)).max_prefixlen - prefix)))


_NETWORKS = st.one_of(
    st.builds(_network, st.integers(0, 2**32 - 1), st.integers(0, 32), st.just(IPv4Network)),
    st.builds(_network, st.integers(0, 2**112 - 1), st.integers(0, 112), st.just(IPv6Network)),
)


@given(st.lists(_NETWORKS, max_size=6), st.data())
def test_an_address_is_in_the_set_if_it_is_in_one_of_the_networks(networks, data):
    ends = [end for one in networks for end in (ip_network(one)[0], ip_network(one)[-1])]
    near = [end + step for end in ends for step in (-1, 0, 1) if 0 <= int(end) + step < 2**32]
    addresses = [*near, *ends, ip_address("203.0.113.5"), data.draw(st.ip_addresses())]

    found = AddressSet(networks)

    for address in addresses:
        expected = any(address in ip_network(one) for one in networks)
        assert ((str(address), 7) in found) == expected
    assert "" not in found
    assert "" in AddressSet(["unix"])
    assert ("fe80::1%eth0", 7, 0, 2) in AddressSet(["fe80::/10"])


def test_a_ban_holds_until_it_is_lifted_or_over(monkeypatch):
    page = Board()
    master, bans = MasterView(page), Bans(page)
    now = 1000.0
    monkeypatch.setattr("time.monotonic_ns", lambda: int(now * 1e9))

    assert ("192.0.2.7", 1) not in bans
    master.ban({"192.0.2.0/24": now + 5, "2001:db8::/32": float("inf")})
    assert ("192.0.2.7", 1) in bans
    assert bans.has_peer("192.0.2.7:1")
    assert bans.has_peer("[2001:db8::1]:1")
    assert not bans.has_peer("unix")
    assert not bans.has_peer("anything")
    assert master.bans == {"192.0.2.0/24": now + 5, "2001:db8::/32": float("inf")}
    now += 6
    assert ("192.0.2.7", 1) not in bans
    assert bans.has_peer("[2001:db8::1]:1")
    master.ban({})
    assert not bans.has_peer("[2001:db8::1]:1")
