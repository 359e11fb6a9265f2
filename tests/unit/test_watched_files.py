"""Which files the watcher takes for changed."""

from __future__ import annotations

import importlib.util
import os
import sys
import threading
import time
from pathlib import Path

import pytest

from linepool import App, SetupError
from linepool.ipc import channel as channels
from linepool.ipc.letters import LetterBox
from linepool.operate import watching
from linepool.settings import parse_setting
from linepool.testing import serve
from linepool.watcher.files import Files, Wanted, remove_compiled
from linepool.watcher.watcher import watch


def wanted(directory: Path, *patterns: str) -> Wanted:
    """Return what is wanted of an app that was loaded a second ago."""
    return Wanted(
        modules=(str(directory / "app.py"),),
        files=(str(directory / "linepool.toml"),),
        patterns=tuple(str(directory / pattern) for pattern in patterns),
        since_ns=time.time_ns() - 10**9,
    )


def names(files: Files, directory: Path) -> list[str]:
    """Return the changed files, as seen from a directory."""
    return [os.path.relpath(path, directory) for path in files.changed()]


def test_a_file_that_has_changed_since_it_was_loaded_is_seen_once(tmp_path: Path) -> None:
    (tmp_path / "app.py").touch()
    files = Files()
    files.want(wanted(tmp_path))
    assert names(files, tmp_path) == ["app.py"]
    files.want(wanted(tmp_path))
    assert names(files, tmp_path) == []


def test_an_edit_of_same_size_and_time_is_seen(tmp_path: Path) -> None:
    app = tmp_path / "app.py"
    app.write_text("a")
    files = Files()
    files.want(wanted(tmp_path))
    files.changed()
    before = app.stat()
    while app.stat().st_ctime_ns == before.st_ctime_ns:  # the clock of files moves in steps
        app.write_text("b")
        os.utime(app, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert names(files, tmp_path) == ["app.py"]


def test_new_modules_and_packages_matter_and_other_files_do_not(tmp_path: Path) -> None:
    files = Files()
    files.want(wanted(tmp_path))
    for name in ("later.py", ".#app.py", "app.sqlite", "linepool.toml"):
        (tmp_path / name).touch()
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").touch()
    (tmp_path / "package" / "module.py").touch()  # only once it is loaded
    assert names(files, tmp_path) == ["later.py", "linepool.toml", "package/__init__.py"]
    (tmp_path / "later.py").unlink()
    assert names(files, tmp_path) == ["later.py"]


def test_patterns_find_files_in_new_directories(tmp_path: Path) -> None:
    files = Files()
    files.want(wanted(tmp_path, "data/**/*.txt"))
    assert files.directories() == {str(tmp_path)}
    (tmp_path / "data" / "deep").mkdir(parents=True)
    (tmp_path / "data" / "deep" / "a.txt").touch()
    (tmp_path / "data" / "deep" / "a.bin").touch()
    assert names(files, tmp_path) == ["data/deep/a.txt"]
    assert str(tmp_path / "data" / "deep") in files.directories()


def test_the_compiled_file_of_a_changed_module_is_removed(tmp_path: Path) -> None:
    compiled = Path(importlib.util.cache_from_source(str(tmp_path / "app.py")))
    compiled.parent.mkdir()
    compiled.touch()
    remove_compiled([str(tmp_path / "app.py"), str(tmp_path / "gone.py"), "/dev/null"])
    assert not compiled.exists()


def test_a_missing_package_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    with pytest.raises(SetupError, match=r"pip install 'linepool\[reload\]'") as caught:
        watching.check_watchfiles()
    assert caught.value.is_usage


def test_a_server_under_test_does_not_reload() -> None:
    with (
        pytest.raises(SetupError, match="leave out reload=True"),
        serve(App("test"), reload=True),
    ):
        pass


def test_a_pattern_is_a_path() -> None:
    with pytest.raises(SetupError, match="here: reload_include must be paths"):
        parse_setting("reload_include", "a\0b", "here")


def test_files_are_looked_at_where_the_system_does_not_tell_of_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError("OS file watch limit reached")

    monkeypatch.setattr("watchfiles.watch", refused)
    ours, theirs = channels.pair()
    thread = threading.Thread(target=watch, args=[theirs])
    thread.start()
    box = LetterBox(ours)
    app = tmp_path / "app.py"
    app.touch()
    facts = {"modules": [str(app)], "files": [], "patterns": []}
    box.send("WANTED", {**facts, "since_ns": time.time_ns() + 10**9})
    while "watch limit" not in caplog.text:
        time.sleep(0.001)
    app.write_text("changed")
    letter = box.receive(wait=True)
    assert letter is not None
    assert letter.facts == {"files": [str(app)]}
    ours.close()
    thread.join()
    theirs.close()
