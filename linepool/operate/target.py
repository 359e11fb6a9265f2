"""The target: from its name on the command line to an app."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from linepool import app as default_app
from linepool.app import App
from linepool.errors import SetupError

_loading: str | None = None


def load(target: str) -> App:
    """Return the app of a target: a file, or ``module:app`` (``module`` alone: its handlers).

    Raises:
        SetupError: The target does not exist, or its code fails; one line says what and where.
    """
    path, _, name = target.rpartition(":") if ".py:" in target else (target, "", "")
    if target.endswith(".py") or name:
        path = path or target
        if not os.path.isfile(path):
            raise SetupError(f"file {path} does not exist")
        module = _run(target, lambda: _import_file(path))
    elif os.path.exists(target) and ":" not in target:
        raise SetupError(f"{target} is not a Python file; give FILE.py or MODULE:APP")
    else:
        module_name, _, name = target.partition(":")
        if not all(part.isidentifier() for part in module_name.split(".")):
            raise SetupError(f"{target!r} is not a target; give FILE.py or MODULE:APP")
        module = _run(target, lambda: _import_module(module_name))
    app = _find(module, name, target)
    if not app.name:
        app.name = module.__name__.rpartition(".")[2]
    return app


def is_loading() -> bool:
    """Whether a target is being loaded."""
    return _loading is not None


def refuse_while_loading() -> None:
    """Raise SetupError if a target is being loaded, because its code must not start a server."""
    if _loading is not None:
        raise SetupError(
            f"{_loading} calls linepool.run() when it is imported;"
            " put the call under: if __name__ == '__main__':"
        )


def _import_file(path: str) -> ModuleType:
    name = os.path.splitext(os.path.basename(path))[0]
    sys.path.insert(0, os.path.dirname(os.path.abspath(path)))
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _import_module(name: str) -> ModuleType:
    sys.path.insert(0, os.getcwd())
    return importlib.import_module(name)


def _run(target: str, load_module: Any) -> ModuleType:
    with _marked_as_loading(target):
        try:
            module: ModuleType = load_module()
        except SetupError:
            raise
        except (Exception, SystemExit) as error:  # noqa: BLE001 - user code; report on one line
            raise SetupError(f"cannot load {target}: {explained(error)}") from None
    return module


@contextlib.contextmanager
def _marked_as_loading(target: str) -> Iterator[None]:
    global _loading  # noqa: PLW0603 - one per process
    _loading = target
    try:
        yield
    finally:
        _loading = None


def explained(error: BaseException) -> str:
    """Return an error on one line, with the line of user code that raised it."""
    if isinstance(error, SyntaxError):
        place = f" ({error.filename}, line {error.lineno})"
        return f"{type(error).__name__}: {error.msg}{place}"
    frames = traceback.extract_tb(error.__traceback__)
    own = os.path.dirname(default_app.__file__)
    theirs = [f for f in frames if "importlib" not in f.filename and not f.filename.startswith(own)]
    try:
        text = " ".join(str(error).split())
    except Exception:  # noqa: BLE001 - str() of a user's exception may fail too
        text = "(no message)"
    place = f" ({theirs[-1].filename}, line {theirs[-1].lineno})" if theirs else ""
    return f"{type(error).__name__}: {text}{place}"


def _find(module: ModuleType, name: str, target: str) -> App:
    if name:
        found = getattr(module, name, None)
        if isinstance(found, App):
            return found
        what = "is not a linepool.App" if hasattr(module, name) else "does not exist"
        raise SetupError(f"{target}: {name} {what}")
    apps = {key: value for key, value in vars(module).items() if isinstance(value, App)}
    if default_app.default.has_handlers:
        return default_app.default
    if len(apps) == 1:
        return next(iter(apps.values()))
    if apps:
        raise SetupError(f"{target} has several apps; append one of :{', :'.join(apps)}")
    raise SetupError(f"{target} has no handlers; register some with @linepool.handler")
