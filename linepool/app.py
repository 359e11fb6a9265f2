"""The app: handlers, hooks and resources, as a user registers them."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, AnyStr, TypeVar, Unpack, overload

import attrs
from attrs import evolve, frozen

from linepool.app_hooks import AppHooks
from linepool.app_resources import AppResources
from linepool.asking import ask
from linepool.errors import SetupError
from linepool.handlers.checks import (
    check_plain_function,
    check_returns,
    checked_protocol,
    refuse_second_load,
)
from linepool.handlers.inject import described, login_of, place_of
from linepool.handlers.json_words import take_json
from linepool.handlers.signature import compile_signature
from linepool.handlers.structured import Structures
from linepool.handlers.waits import take_wait
from linepool.hooks import run_in_worker
from linepool.idempotent import mark
from linepool.protocols.base import Limits, Protocol
from linepool.protocols.line import Line
from linepool.request_hooks import RequestHooks
from linepool.resources import Resources, in_request_scope, is_of_request
from linepool.resources.functions import Resolved
from linepool.resources.graph import BATCH
from linepool.service import Entry, Service
from linepool.settings import check_names_of_app, parse_setting
from linepool.settings.keywords import AppSettings
from linepool.values.json_text import load_library

if TYPE_CHECKING:
    from cattrs import Converter

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T", bound=type)

_LONGEST_TIMEOUT = 1e9  # seconds
_NOT_FOR_STREAMS = {
    BATCH: "ends before the first part of a reply is sent, so a generator handler cannot use it; take a"
    " resource of the scope worker"
}


@frozen
class _Registration:
    """A handler as it was registered; its signature is compiled when the app is frozen."""

    names: tuple[str, ...]
    function: Callable[..., Any]
    timeout: float | None = None
    options: Mapping[str, Any] = {}
    is_builtin: bool = False
    is_idempotent: bool = False
    is_public: bool = False

    @property
    def place(self) -> str:
        """``name at file:line``, for messages."""
        return described(self.function)


class App(AppHooks, RequestHooks, AppResources):
    """A set of handlers with their hooks and resources.

    Args:
        name: Shown in status and logs; the default is the name of the file that is served.
        protocol: A pattern for the protocol of each connection; the default is ``Line()``.
        builtins: Serve the protocol's own commands (HELP and QUIT in ``Line``) where the app has no
            handlers of these names.
        guard: Refuse clients that speak HTTP or TLS, or send a PROXY header.
        converter: A converter of cattrs whose hooks come before linepool's own rules for arguments; it is
            not changed.
        settings: Any setting by name but those of the processes, such as ``user``; file, environment and
            command line override it.

    Raises:
        SetupError: A setting is unknown, or one of the processes.
    """

    def __init__(
        self,
        name: str = "",
        *,
        protocol: Protocol | None = None,
        builtins: bool = True,
        guard: bool = True,
        converter: Converter | None = None,
        **settings: Unpack[AppSettings],
    ) -> None:
        super().__init__()
        check_names_of_app(settings)
        self.name = name
        self.protocol = Line() if protocol is None else checked_protocol(protocol)
        self.builtins = builtins
        self.guard = guard
        self._structures = Structures(converter)
        self.settings: Mapping[str, Any] = dict(settings)
        self._handlers: dict[str, _Registration] = {}
        self._unknown: _Registration | None = None
        self._started = False
        self._kept: tuple[object, Service] | None = None

    @overload
    def handler(self, function: F, /) -> F: ...

    @overload
    def handler(
        self,
        *names: str,
        timeout: float | None = None,
        idempotent: bool = False,
        public: bool = False,
        **options: Any,
    ) -> Callable[[F], F]: ...

    def handler(
        self,
        *names: Any,
        timeout: float | None = None,
        idempotent: bool = False,
        public: bool = False,
        **options: Any,
    ) -> Any:
        """Serve a function as a command, named after it or by ``names``; further names are aliases.

        Args:
            names: The command's names; case does not count. Without any, the function's name, minus
                one trailing underscore (``def set_``).
            timeout: Seconds after which a request is overdue, instead of ``request_timeout``;
                0: never.
            idempotent: To run it twice does no more than to run it once, so a client may send a
                request again whose reply did not come. The schema says so.
            public: Clients may use it before they have logged in, see ``authenticate``.
            options: Options of the protocol for a command; ``Protocol.options`` lists them.

        Raises:
            SetupError: The command has a handler already, or the function cannot be one.
        """
        function = None
        if len(names) == 1 and (callable(names[0]) or isinstance(names[0], classmethod)):
            (function,), names = names, ()
        _check_names(names)
        if timeout is not None and not _is_seconds(timeout):
            raise SetupError(f"timeout must be seconds, 0 or more, not {timeout!r}")
        for name, value in (("idempotent", idempotent), ("public", public)):
            if not isinstance(value, bool):
                raise SetupError(f"{name} must be True or False, not {value!r}")
        for option in options:
            if option not in self.protocol.options:
                known = ", ".join(["timeout", "idempotent", "public", *self.protocol.options])
                raise SetupError(f"handler() has no option {option!r}; the options are {known}")

        def register(function: Any) -> Any:
            flags = {"is_idempotent": idempotent, "is_public": public}
            return self._register(_Registration(names, function, timeout, options, **flags))

        return register if function is None else register(function)

    def unknown(self, function: F) -> F:
        """Call a function for commands that have no handler; ask for ``Verb`` to learn which.

        Raises:
            SetupError: There is one already, or it cannot be called like this.
        """
        check_plain_function(function)
        if self._unknown is not None:
            before = self._unknown.function
            refuse_second_load(before, function)
            raise SetupError(
                f"unknown {described(function)}: there is one already: {described(before)}"
            )
        self._unknown = _Registration((), function)
        return function

    def include(self, other: App, prefix: str = "") -> None:
        """Serve the handlers of another app too, those that it has by now, with their resources.

        Its hooks ``on_start``, ``on_worker_start`` and ``on_worker_exit`` come with them, and the class of
        its ``config``. Middleware, ``on_error`` and the hooks of connections stay where they are: those of
        this app count. If a server serves both apps, each has resources of its own.

        Args:
            other: May go on as an app of its own.
            prefix: Put in front of each command's name, as in ``ADMIN.STATUS``.

        Raises:
            SetupError: Both have a command or a resource of one name, or an option of a handler is not one
                of this app's protocol.
        """
        if other is self:
            raise SetupError("an app cannot include itself")
        registrations = list({id(one): one for one in other._handlers.values()}.values())
        for registration in registrations:
            function = registration.function
            names = tuple(prefix + name for name in registration.names)
            try:
                self.handler(
                    *names,
                    timeout=registration.timeout,
                    idempotent=registration.is_idempotent,
                    public=registration.is_public,
                    **registration.options,
                )(function)
            except SetupError as error:
                raise SetupError(f"include: handler {registration.place}: {error}") from None
        self._include_resources(other)
        for name in ("on_start", "on_worker_start", "on_worker_exit"):
            for function in other._hooks.of(name):
                self._hooks.add(name, function)

    @property
    def has_handlers(self) -> bool:
        """Whether anything would be served besides the built-in commands."""
        return bool(self._handlers or self._unknown)

    @property
    def functions(self) -> list[Callable[..., Any]]:
        """All functions that were registered, handlers first."""
        functions = [one.function for one in self._handlers.values()]
        functions += [self._unknown.function] if self._unknown else []
        functions += [*self._middleware, *self._error_hooks]
        functions += [self._authenticate] if self._authenticate else []
        functions += self._resources.functions.values()
        return functions + self._hooks.functions

    def freeze(self, limits: Limits | None = None) -> Service:
        """Return the app made ready to serve: every annotation resolved, every converter built.

        Raises:
            SetupError: A handler, hook or resource cannot be served; the text names it.
        """
        resolved = self._resources.resolved(self.protocol)
        injector = resolved.injector
        injector.structures = self._structures
        if self.protocol.typed:
            load_library()  # the workers share it
        for name in (
            "on_worker_start",
            "on_worker_exit",
        ):  # an error is raised now, not in each worker
            self._hooks.compiled(name, injector)
        table: dict[bytes, Entry] = {}
        unknown = self._unknown
        middleware, supplies = self._layers(injector)
        authenticate = self._authentication(injector, self.protocol)
        service = Service(
            name=self.name,
            protocol=self.protocol,
            table=table,
            unknown=self._entry(unknown, resolved) if unknown else None,
            middleware=middleware,
            supplies=supplies,
            authenticate=authenticate,
            on_error=self._compiled_error_hooks(injector),
            on_connect=self._hooks.compiled("on_connect", injector),
            on_disconnect=self._hooks.compiled("on_disconnect", injector),
            limits=limits or Limits(),
            guard=self.guard,
        )
        registrations = list({id(r): r for r in self._handlers.values()}.values())
        registrations += self._builtins(has_login=authenticate is not None)
        for registration in registrations:
            entry = self._entry(registration, resolved)
            if self.protocol.ignores_case:
                entry.names = tuple(_upper(name) for name in entry.names)
            table.update((name.encode(), entry) for name in entry.names)
        self.protocol.check(service.commands)
        for number, entry in enumerate(service.entries, 1):
            entry.number = number
        return service

    def _builtins(self, *, has_login: bool) -> Iterator[_Registration]:
        """Yield the protocol's own commands, as far as the app has none of these names."""
        protocol, taken = self.protocol, set(self._handlers)
        builtins = [*protocol.login_builtins()] if has_login else []
        for names, function, *more in [*builtins, *(protocol.builtins() if self.builtins else ())]:
            left = tuple(name for name in names if name.upper() not in taken)
            if left:
                taken.update(left)
                is_public = names[0] in protocol.public_builtins
                options = more[0] if more else {}
                yield _Registration(left, function, None, options, True, is_public=is_public)

    def start(self) -> None:
        """Run the ``on_start`` hooks, once."""
        if not self._started:
            self._started = True
            for function in self._hooks.of("on_start"):
                function()

    @contextlib.contextmanager
    def worker(self) -> Iterator[Resources]:
        """Open what a worker has: its resources, by name, between its start and exit hooks."""
        resolved = self._resources.resolved(self.protocol)
        with resolved.opened() as resources:
            starting = self._hooks.compiled("on_worker_start", resolved.injector)
            run_in_worker(starting, resources)
            try:
                yield resources
            finally:
                resources.discard_batch()
                leaving = self._hooks.compiled("on_worker_exit", resolved.injector)
                run_in_worker(leaving, resources)

    def ask(self, data: AnyStr, *, user: str | None = None, raise_errors: bool = False) -> AnyStr:
        r"""Return all that a client would read that sends this and ends its stream, in the same type.

        ``app.ask("ADD 2 3") == "5"``, ``app.ask(b"ADD 2 3\r\n") == b"5\r\n"``. If the last line has no
        ending, it is completed (in a protocol of lines), and the reply is returned without its last ending.
        No socket and no process is involved; each call is one connection to a new worker, so it opens and
        closes the resources.

        Args:
            data: One or more requests; a str is UTF-8.
            user: The client has logged in as this user.
            raise_errors: Raise the first exception that is not a reply, with the traceback of the app's
                code, in place of the reply that names its id. ``ClientError`` and other errors that are
                replies are returned as the client reads them.

        Raises:
            TypeError: The data is neither str nor bytes.
        """
        self.start()
        return ask(self._kept_service(), self.worker(), data, user=user, raise_errors=raise_errors)

    def _kept_service(self) -> Service:
        """Return the app made ready to serve: as in the last call, unless the app has changed since."""
        state = (
            *(self.name, self.protocol, self.builtins, self.guard, self._limits()),
            *(tuple(self._handlers.items()), self._unknown, tuple(self.functions)),
            self._resources.state(),
        )
        if self._kept is None or self._kept[0] != state:
            self._kept = state, self.freeze(self._limits())
        return self._kept[1]

    def _limits(self) -> Limits:
        names = [field.name for field in attrs.fields(Limits)]
        given = {name: self.settings[name] for name in names if name in self.settings}
        return Limits(**{k: parse_setting(k, v, "App(...)") for k, v in given.items()})

    def _register(self, registration: _Registration) -> Any:
        function = registration.function
        check_plain_function(function)
        if not registration.names:
            name = function.__name__
            names = (name[:-1] if name.endswith("_") else name,)
            _check_names(names)
            registration = evolve(registration, names=names)
        for name in map(_upper, registration.names):
            if name in self._handlers:
                before = self._handlers[name]
                refuse_second_load(before.function, function)
                raise SetupError(
                    f"command {name} has two handlers: {before.place} and {registration.place}"
                )
            self._handlers[name] = registration
        if registration.is_idempotent:
            mark(function)
        return function

    def _may_log_in(self, registration: _Registration) -> bool:
        given = self._authenticate or self.protocol.authenticator
        return registration.is_builtin or given is not None

    def _entry(self, registration: _Registration, resolved: Resolved) -> Entry:
        function, injector = registration.function, resolved.injector
        try:
            signature = compile_signature(function, injector, injector.convert_for)
            if login_of in signature.supplied.values() and not self._may_log_in(registration):
                raise SetupError("a Login needs a function that checks log-ins: @app.authenticate")
            waits = take_wait(signature, function, self.protocol)
            if self.protocol.takes_json:
                take_json(signature, self._structures)
            if not self._middleware:  # which may return something else
                check_returns(signature.returns, self.protocol)
            if inspect.isgeneratorfunction(function):
                injector.refuse(function, _NOT_FOR_STREAMS)
        except SetupError as error:
            raise SetupError(f"handler {registration.place}: {error}") from None
        entry = Entry(
            registration.names,
            function,
            signature,
            registration.timeout,
            inspect.getdoc(function) or "",
            place_of(function),
            registration.options,
            registration.is_builtin,
            registration.is_idempotent,
            registration.is_public,
            waits,
        )
        if any(map(is_of_request, signature.supplied.values())):
            entry.call = in_request_scope(entry.call)
        return entry


def _upper(name: str) -> str:
    """Return a command's name in upper case; of letters beyond ASCII, the case counts."""
    return name.encode().upper().decode()


def _check_names(names: Sequence[Any]) -> None:
    """Raise SetupError if a command cannot have one of these names."""
    for name in names:
        if not isinstance(name, str) or not name or not name.isprintable() or " " in name:
            raise SetupError(
                f"{name!r} cannot be the name of a command: it must be one word without blanks"
            )


def _is_seconds(value: object) -> bool:
    return isinstance(value, int | float) and 0 <= value <= _LONGEST_TIMEOUT


default = App()
"""The app on which ``linepool.handler`` and its siblings act."""

handler = default.handler
unknown = default.unknown
middleware = default.middleware
authenticate = default.authenticate
resource = default.resource
config = default.config
on_start = default.on_start
on_worker_start = default.on_worker_start
on_worker_exit = default.on_worker_exit
on_connect = default.on_connect
on_error = default.on_error
on_disconnect = default.on_disconnect
when_ready = default.when_ready
on_reload = default.on_reload
on_worker_end = default.on_worker_end
on_stop = default.on_stop
