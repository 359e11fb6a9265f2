"""Which of a client's connections have TLS; light, for most have none."""

from __future__ import annotations

from collections.abc import Sequence

from linepool.client.endpoint import Endpoint, Wire
from linepool.client.sockets import TlsOptions


def set_contexts(endpoints: Sequence[Endpoint], options: TlsOptions) -> None:
    """Set how the connections to each endpoint have TLS.

    Raises:
        ValueError: The options are wrong, or do not fit the addresses; the text says how.
    """
    if not (
        options.tls is None or isinstance(options.tls, bool) or hasattr(options.tls, "wrap_bio")
    ):
        # As for other options, whatever is wrong with them.
        raise ValueError(f"tls must be True, False or an ssl.SSLContext, not {options.tls!r}")
    secure = [one for one in endpoints if one.uses_tls or options.is_for_all]
    for one in secure:
        if isinstance(one.target, str):
            raise ValueError(  # noqa: TRY004 - the address is wrong
                f"TLS is for HOST:PORT, not for {one.name}"
            )
    if secure:
        from linepool.client.tls import context_of  # noqa: PLC0415 - takes long to import

        context = context_of(options)
        for one in secure:
            one.context = context
    elif options.has_files:
        raise ValueError("tls_ca, tls_cert and tls_key are for TLS, which tls=False turns off")


async def secured(wire: Wire, endpoint: Endpoint, deadline: float) -> Wire:
    """Return a new connection with TLS, over one without; if that fails, it is closed.

    Raises:
        TlsError: It cannot be, now or at another time; the text says what would be right.
        OSError: The connection has failed; TimeoutError at the deadline.
    """
    from linepool.client.tls import TlsWire  # noqa: PLC0415 - takes long to import

    assert endpoint.context is not None
    secure = TlsWire(wire, endpoint.context, endpoint.target[0])
    try:
        await secure.shake_hands(deadline)
    except BaseException:
        wire.close()
        raise
    return secure
