"""When the files of certificates and keys are read: before a process becomes the user that serves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from linepool.operate.config import Given
from linepool.settings.tls import TlsSettings

if TYPE_CHECKING:
    from linepool.tls.contexts import Contexts, ServerTls


class Certificates:
    """The certificates of one process, read when they are first asked for, and not again."""

    def __init__(self) -> None:
        self._contexts: Contexts | None = None  # Python's ssl is loaded only if there is TLS

    def read(self, outside: Given) -> None:
        """Read those that are given outside of the app, whose code runs as a user who may be unable to.

        Raises:
            SetupError: One cannot be used, or a setting is wrong.
        """
        names = attrs.fields_dict(TlsSettings)
        given = {name: outside.value(name) for name in names}
        for own in ({}, *(dict(table.options) for table in outside.tables)):
            settings = TlsSettings(**given | {key: own[key] for key in names if key in own})
            if settings.tls_cert:
                settings.check_tls()
                self.of(settings)

    def of(self, settings: TlsSettings) -> ServerTls | None:
        """Return TLS for some settings; None: they want none.

        Raises:
            SetupError: A file cannot be used, or a value is wrong.
        """
        if not settings.tls_cert:
            return None
        if self._contexts is None:
            from linepool.tls.contexts import Contexts  # noqa: PLC0415 - see above

            self._contexts = Contexts()
        return self._contexts.of(settings)
