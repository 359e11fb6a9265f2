"""The target: from its name on the command line to an app."""

from __future__ import annotations

import ast
import contextlib
import importlib
import importlib.util
import inspect
import os
import pwd
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import TypeVar, cast

from attrs import frozen

from linepool import app as default_app
from linepool.app import App
from linepool.errors import SetupError
from linepool.forked import contained_in_load
from linepool.handlers.inject import described
from linepool.near import nearest
from linepool.shortened import shortened
from linepool.signatures import signature_of

T = TypeVar("T")

_FORMS = "FILE.py, a package, MODULE or MODULE:APP"

# ... and what is behind the colon: the name of an app, or a call of a function that makes one.
_NAMED = re.compile(r"(.+?):([^\W\d]\w*(?:\(.*\))?)", re.DOTALL)
_MOST_FRAMES = 20  # of an error in the target

_loading: str | None = None


@frozen
class _Place:
    """Where a module is.

    Attributes:
        directory: The directory on sys.path from which it can be imported.
        name: Its full name.
        path: Its file, if it is loaded from there; "": it is imported by its name.
        beside: The directory of a file in a package; modules there may be imported as from a script.
    """

    directory: str
    name: str
    path: str = ""
    beside: str = ""

    @property
    def top(self) -> str:
        """The name of the outermost package, or of the module itself."""
        return self.name.partition(".")[0]


def load(target: str) -> App:
    """Return the app of a target: a file or package, a module, or one of these with ``:APP``.

    In the place of APP may be the call of a function that returns one, with literals as arguments:
    ``shop.py:create_app(debug=True)``.

    Raises:
        SetupError: The target does not exist, or its code fails; the first line says what and where, and
            the frames of the user's own code follow.
    """
    app, name = load_unnamed(target)
    app.name = app.name or name
    return app


def load_unnamed(target: str) -> tuple[App, str]:
    """Return the app of a target as ``load``, and the name that it is given if it has none."""
    where, name = parts_of(target)
    try:
        place = _place(where)
    except OSError as error:  # there is no working directory
        raise SetupError(f"cannot load {target}: {error.strerror}") from None
    _refuse_hidden(place)
    try:
        module = _run(target, lambda: _import(place))
    except SetupError as error:
        own = re.escape(repr(place.name))
        first, newline, frames = str(error).partition("\n")
        if place.path and re.search(f"module {own} has no|from {own}|{own} is not a", first):
            # It imports its own name.
            hint = f"; rename the file if another module {place.name!r} is meant"
            raise SetupError(first + hint + newline + frames) from None
        if "relative import with no known parent" in first:
            hint = "; put an empty __init__.py beside the file: then it is a package's"
            raise SetupError(first + hint + newline + frames) from None
        raise
    app = _made(module, target, name) if name.endswith(")") else find(module, target, name)
    return app, module.__name__.rpartition(".")[2]


def parts_of(target: str) -> tuple[str, str]:
    """Return the file or module of a target, and what is behind the colon; "": nothing.

    Raises:
        SetupError: There is a colon, and nothing behind it.
    """
    if target.endswith(".py") or os.path.exists(target):
        return target, ""
    if target.endswith(":"):
        raise SetupError(f"{target} names no app after the colon; give {_FORMS}")
    found = _NAMED.fullmatch(target)
    return (found[1], found[2]) if found else (target, "")


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


def _place(where: str) -> _Place:
    package = os.path.join(where, "__init__.py")
    if os.path.isfile(package):
        return _place_of_file(package)
    if where.endswith(".py"):
        if not os.path.isfile(where):
            raise SetupError(f"file {where} {_why_no_file(where)}")
        return _place_of_file(where)
    if os.path.exists(where):
        raise SetupError(f"{where} is not a Python file or a package; give {_FORMS}")
    if not all(part.isidentifier() for part in where.split(".")):
        raise SetupError(f"{where!r} is not a target; give {_FORMS}")
    return _Place(os.getcwd(), where)


def _why_no_file(path: str) -> str:
    try:
        os.stat(path)
    except PermissionError as error:
        return f"cannot be read by the user {_user()}: {error.strerror}"
    except OSError:
        pass
    return "does not exist"


def _user() -> str:
    """Return the name of the user that this process is, or the number."""
    uid = os.geteuid()
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _place_of_file(path: str) -> _Place:
    """Return where a file is; one in a package has the name that it has in the package."""
    own_directory, file = os.path.split(os.path.abspath(path))
    stem = file.removesuffix(".py")
    directory, names = own_directory, [] if stem == "__init__" else [stem]
    while os.path.isfile(os.path.join(directory, "__init__.py")):
        directory, package = os.path.split(directory)
        names.insert(0, package)
    if all(name.isidentifier() for name in names) and directory != own_directory:
        return _Place(directory, ".".join(names), beside=own_directory)
    return _Place(own_directory, stem, path)


def _import(place: _Place) -> ModuleType:
    sys.path.insert(0, place.directory)
    if place.beside:
        sys.path.append(place.beside)  # the last: a package may have a module named types
    if not place.path:
        importlib.invalidate_caches()
        return importlib.import_module(place.name)
    spec = importlib.util.spec_from_file_location(place.name, place.path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[place.name] = module
    spec.loader.exec_module(module)
    return module


def _refuse_hidden(place: _Place) -> None:
    """Raise SetupError if another module, which Python or linepool needs, has the same name."""
    base = os.path.join(place.directory, place.top)
    for file in (f"{base}.py", os.path.join(base, "__init__.py")):
        if os.path.isfile(file) and (
            place.top in sys.stdlib_module_names or _is_another(sys.modules.get(place.top), file)
        ):
            raise SetupError(
                f"{file} has the name of the module {place.top!r}, which would be hidden; rename it"
            )


def _is_another(loaded: ModuleType | None, file: str) -> bool:
    origin = getattr(loaded, "__file__", None)
    if origin:
        return real_path(str(origin)) != real_path(file)
    return loaded is not None


def real_path(path: str) -> str:
    """Return a path without symbolic links."""
    try:
        return os.path.realpath(path)
    except OSError:  # the working directory has been removed
        return path


def _run(target: str, load: Callable[[], T]) -> T:
    """Run code of the user's, as long as the target is being loaded.

    Raises:
        SetupError: It fails.
    """
    with _marked_as_loading(target):
        try:
            with contained_in_load():
                return load()
        except SetupError:
            raise
        except KeyboardInterrupt:  # of ^C: the whole server ends
            raise
        except BaseException as error:  # noqa: BLE001 - user code; report on one line
            raise SetupError(f"cannot load {target}: {explained(error)}") from None


@contextlib.contextmanager
def _marked_as_loading(target: str) -> Iterator[None]:
    global _loading  # noqa: PLW0603 - one per process
    _loading = target
    try:
        yield
    finally:
        _loading = None


def explained(error: BaseException) -> str:
    """Return an error: what and where on the first line, below it the frames of the user's own code."""
    lines = [_summary(error)]
    cause: BaseException | None = error
    seen: set[int] = set()
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        if cause is not error:
            lines.append(f"  before that: {_named(cause)}")
        lines += _frames(cause)
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return "\n".join(lines)


def _summary(error: BaseException) -> str:
    if isinstance(error, SyntaxError):
        place = f" ({error.filename}, line {error.lineno})" if error.filename else ""
        return f"{type(error).__name__}: {error.msg}{place}"
    hint = ""
    if isinstance(error, ModuleNotFoundError) and error.name:
        hint = f"; it is neither beside the target nor installed for {sys.executable}"
    if isinstance(error, SystemExit):
        hint = "; a file that is served must not end the process that loads it"
    theirs = _own_stack(error)
    place = f" ({theirs[-1].filename}, line {theirs[-1].lineno})" if theirs else ""
    return f"{_named(error)}{hint}{place}"


def _named(error: BaseException) -> str:
    text = _text(error)
    return type(error).__name__ + f": {text}" * bool(text)


def _text(error: BaseException) -> str:
    try:
        return " ".join(shortened(str(error)).split())
    except Exception:  # noqa: BLE001 - str() of a user's exception may fail too
        return "(no message)"


def _frames(error: BaseException) -> list[str]:
    lines = traceback.StackSummary.from_list(_own_stack(error)[-_MOST_FRAMES:]).format()
    if isinstance(error, SyntaxError):
        lines += traceback.format_exception_only(error)[:-1]  # the line, and a caret
    return "".join(lines).splitlines()


def _own_stack(error: BaseException) -> list[traceback.FrameSummary]:
    """Return the frames of the user's own code; if there are none, those of installed packages."""
    linepool, library = os.path.dirname(default_app.__file__), os.path.dirname(os.__file__)
    importer = os.path.join(library, "importlib", "")
    stack = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith((linepool + os.sep, "<frozen ", importer))
    ]
    theirs = [frame for frame in stack if not frame.filename.startswith(library + os.sep)]
    return [frame for frame in theirs if "-packages" not in frame.filename] or theirs or stack


def find(module: ModuleType, target: str, name: str = "") -> App:
    """Return the app of a module: of this name, or the only one.

    Raises:
        SetupError: The module holds no app, or several.
    """
    if name:
        found = getattr(module, name, None)
        if isinstance(found, App):
            return found
        if not hasattr(module, name):
            raise SetupError(f"{target}: {name} does not exist{_nearest(module, name)}")
        if inspect.isroutine(found) and not _can_be_called(found):
            raise SetupError(
                f"{target}: {name} is a function with parameters, such as a WSGI app; linepool serves"
                " functions that are registered with @linepool.handler"
            )
        if inspect.isroutine(found):
            raise SetupError(
                f"{target}: {name} is a function; to serve the app that it returns, give {target}()"
            )
        raise SetupError(f"{target}: {name} is not a linepool.App")
    default = default_app.default
    apps = {id(app): key for key, app in vars(module).items() if isinstance(app, App)}
    apps.pop(id(default), None)
    names = list(apps.values())
    if names and (stray := left_out()):
        raise SetupError(
            f"{target} has the app {names[0]}, to which {stray} does not belong: register it with"
            f" @{names[0]}..., or serve only that app (TARGET:{names[0]}; linepool.run({names[0]}))"
        )
    if default.has_handlers:
        return default
    if len(names) == 1:
        return cast("App", getattr(module, names[0]))
    if names:
        raise SetupError(f"{target} has several apps; append one of :{', :'.join(names)}")
    raise SetupError(f"{target} has no handlers; register some with @linepool.handler")


def _can_be_called(function: Callable[..., object]) -> bool:
    """Whether a function can be called without arguments."""
    try:
        signature_of(function).bind()
    except TypeError:
        return False
    except ValueError:  # of C, without a signature
        pass
    return True


def _made(module: ModuleType, target: str, call: str) -> App:
    """Return the app that a function of the module returns.

    Raises:
        SetupError: It does not, or the call has other arguments than literals.
    """
    name = call.partition("(")[0]
    try:
        node = cast("ast.Call", ast.parse(call, mode="eval").body)
        arguments = [ast.literal_eval(one) for one in node.args]
        keywords = {str(one.arg): ast.literal_eval(one.value) for one in node.keywords if one.arg}
        if len(keywords) < len(node.keywords):
            raise ValueError("**")
    except (SyntaxError, ValueError):
        raise SetupError(
            f"{target}: the arguments of {name} must be literals, such as {name}('eu', debug=True)"
        ) from None
    function = getattr(module, name, None)
    if function is None:
        raise SetupError(f"{target}: {name} does not exist{_nearest(module, name)}")
    if not callable(function) or isinstance(function, App):
        raise SetupError(f"{target}: {name} cannot be called; leave out the parentheses")
    app = _run(target, lambda: function(*arguments, **keywords))
    if not isinstance(app, App):
        raise SetupError(f"{target}: {call} returned {app!r}, not a linepool.App")
    return app


def _nearest(module: ModuleType, name: str) -> str:
    """Return a question that names the nearest app or function of a module; "": none is near."""
    offers = {
        key: isinstance(value, App) or inspect.isfunction(value)
        for key, value in vars(module).items()
    }
    near = nearest(name, [key for key, is_offer in offers.items() if is_offer])
    return f"; did you mean {near}?" if near else ""


def left_out(*apps: App) -> str:
    """Return what was registered for no app in particular, if that is not served; "": nothing."""
    default = default_app.default
    return described(default.functions[0]) if default.functions and default not in apps else ""
