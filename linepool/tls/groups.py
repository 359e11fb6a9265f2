"""The groups that keys are agreed on with: those that cost the server little.

With OpenSSL's own list, a client of TLS 1.3 may choose a finite field of 8192 bits, at no cost to itself: one
such handshake holds a worker for 0.1 s (CVE-2022-40735). Python before 3.15 can only name a single group.
"""

from __future__ import annotations

import _ssl
import ctypes
import ssl
import sys

GROUPS = "X25519:P-256:P-384"
_WITH_POST_QUANTUM = f"X25519MLKEM768:{GROUPS}"
_HYBRIDS_SINCE = (3, 5)  # OpenSSL
_SET_GROUPS_LIST = 92  # SSL_CTRL_SET_GROUPS_LIST of openssl/ssl.h


def limit_groups(context: ssl.SSLContext) -> None:
    """Have a context agree on keys in few groups only."""
    has_hybrids = ssl.OPENSSL_VERSION_INFO[:2] >= _HYBRIDS_SINCE
    names = _WITH_POST_QUANTUM if has_hybrids else GROUPS
    if hasattr(context, "set_groups"):
        context.set_groups(names)
    elif not _set_groups(context, names):
        # Clients that begin with another one are asked to begin anew, which takes a round trip.
        context.set_ecdh_curve("prime256v1")


def _set_groups(context: ssl.SSLContext, names: str) -> bool:
    """Call OpenSSL for what Python has no method for; return whether that was possible."""
    if sys.implementation.name != "cpython":
        return False
    try:
        control = ctypes.CDLL(getattr(_ssl, "__file__", None)).SSL_CTX_ctrl
    except (OSError, AttributeError):  # OpenSSL is built into Python, and shows nothing
        return False
    control.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_long, ctypes.c_char_p)
    control.restype = ctypes.c_long
    # The first field of a context is the pointer to OpenSSL's, in all versions of Python that come here.
    of_openssl = ctypes.c_void_p.from_address(id(context) + object.__basicsize__)
    return bool(control(of_openssl, _SET_GROUPS_LIST, 0, names.encode()) == 1)
