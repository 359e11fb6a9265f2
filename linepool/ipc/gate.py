"""Which clients may connect. Used by the workers, and by the parker in ``dispatch``."""

from __future__ import annotations

from linepool.ipc.board import Bans
from linepool.kernel.address_set import AddressSet
from linepool.kernel.sockets import UnixPeer
from linepool.settings import Settings


class Gate:
    """The rules of a listener: settings such as ``allow`` and ``proxy_from``, and the bans of all listeners.

    Attributes:
        has_rules: There are others than bans.
        has_proxies: Connections come from proxies, which say who the client is.
    """

    def __init__(self, settings: Settings, bans: Bans) -> None:
        self.has_proxies = bool(settings.proxy_from)
        self._proxies = AddressSet(settings.proxy_from)
        self.has_rules = bool(settings.allow or settings.deny or settings.allow_uids)
        self._uids = frozenset(settings.allow_uids)
        self._allow = AddressSet(settings.allow)
        self._deny = AddressSet(settings.deny)
        self._allows_all = not settings.allow
        self._bans = bans

    def denies_peer(self, address: object) -> bool:
        """Whether a connection is refused, given the address of its peer: the client, or a proxy."""
        if not self.has_proxies:
            return self.denies(address)
        return address not in self._proxies or self._is_other_user(address) or address in self._bans

    def denies(self, address: object) -> bool:
        """Whether a client is refused, given its address as ``Listener.accept`` returns it."""
        if self.has_rules and (
            address in self._deny or not (self._allows_all or address in self._allow)
        ):
            return True
        return self._is_other_user(address) or address in self._bans

    def _is_other_user(self, address: object) -> bool:
        return bool(self._uids) and isinstance(address, UnixPeer) and address.uid not in self._uids
