"""Which handlers' requests may wait. Pure: no I/O, no clock."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Union, get_args, get_origin

from linepool.errors import SetupError
from linepool.handlers.inject import LiveResourceOf, connection_of, waited_of
from linepool.handlers.signature import Signature
from linepool.protocols.base import Protocol
from linepool.values.annotations import bare, is_union
from linepool.waiting import Wait


def take_wait(signature: Signature, function: Callable[..., Any], protocol: Protocol) -> bool:
    """Return whether a handler's requests may wait; its return annotation is then about its replies only.

    Raises:
        SetupError: They may, and cannot with this protocol, or because of what the handler takes.
    """
    hint = signature.returns
    says = _names_wait(hint)
    if says:
        left = [arm for arm in get_args(bare(hint)) if not _names_wait(arm)]
        signature.returns = Union[tuple(left)] if left else None  # noqa: UP007 - the arms are values
    if not says and waited_of not in signature.supplied.values():
        return False
    if not protocol.can_wait:
        raise SetupError(f"requests cannot wait with {type(protocol).__name__}")
    if inspect.isgeneratorfunction(function):
        raise SetupError("a generator's request cannot wait: its reply has begun")
    for name, supply in signature.supplied.items():
        if supply is connection_of or isinstance(supply, LiveResourceOf):
            raise SetupError(
                f"a request cannot wait whose handler takes the live connection (parameter {name}): that"
                " stays in its worker"
            )
    return True


def _names_wait(hint: Any) -> bool:
    hint = bare(hint) if hint is not None else hint
    if is_union(hint):
        return any(map(_names_wait, get_args(hint)))
    return hint is Wait or get_origin(hint) is Wait
