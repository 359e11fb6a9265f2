"""An app that sets up ``logging`` as WAY says, at the moment that WHERE says, and then fails."""

import logging
import logging.config
import os
import threading
import warnings

import common  # noqa: F401 - registers handlers that many tests use

import linepool


class Broken(logging.Handler):
    """Fails to handle a record."""

    def handle(self, record: logging.LogRecord) -> bool:
        """Fail."""
        raise RuntimeError("no")


class Unformatted(logging.StreamHandler):  # type: ignore[type-arg]
    """Has a format with a field that only the app's own records have."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(request_id)s %(message)s"))


def _broken_factory(*args: object, **kwargs: object) -> logging.LogRecord:
    raise RuntimeError("no records today")


def _configured(**root: object) -> None:
    stream = {"class": "logging.StreamHandler", "stream": "ext://sys.stdout"}
    logging.config.dictConfig({"version": 1, "handlers": {"out": stream}, "root": root})


WAYS = {
    "nothing": lambda: None,
    "dictConfig": lambda: _configured(handlers=["out"], level="CRITICAL"),
    "dictConfig without handlers": _configured,
    "logging.disable": lambda: logging.disable(logging.CRITICAL),
    "level of root": lambda: logging.getLogger().setLevel(logging.CRITICAL),
    "level of linepool": lambda: logging.getLogger("linepool").setLevel(logging.CRITICAL),
    "NullHandler": lambda: logging.getLogger().addHandler(logging.NullHandler()),
    "no propagation": lambda: setattr(logging.getLogger("linepool"), "propagate", False),
    "no handlers": logging.getLogger().handlers.clear,
    "broken handler": lambda: logging.getLogger().addHandler(Broken()),
    "broken format": lambda: logging.getLogger().addHandler(Unformatted()),
    "broken factory": lambda: logging.setLogRecordFactory(_broken_factory),
    "basicConfig": lambda: logging.basicConfig(level="DEBUG", format="MINE %(message)s"),
}


def _set_up(where: str) -> None:
    if os.environ.get("WHERE") == where:
        WAYS[os.environ["WAY"]]()


_set_up("module")


@linepool.on_start
def start() -> None:
    """Set up."""
    _set_up("on_start")


@linepool.on_worker_start
def worker_start() -> None:
    """Set up."""
    _set_up("on_worker_start")


@linepool.handler
def fail(text: str = "boom") -> None:
    """Set up, and raise an exception with the client's text."""
    _set_up("handler")
    raise ValueError(text)


@linepool.handler
def fail_too() -> None:
    """Raise another exception."""
    raise KeyError("another fault")


@linepool.handler
def note(text: str) -> None:
    """Log the client's text as an app does."""
    logging.getLogger("app").debug("fine grained")
    logging.getLogger("app").warning("noted %s", text)


@linepool.handler
def warn(text: str) -> None:
    """Issue a warning, and raise an exception in a thread."""
    warnings.warn(text, stacklevel=1)
    thread = threading.Thread(target=int, args=[text])
    thread.start()
    thread.join()
