"""``linepool new``: the project that it makes is tested, checked and served as its README says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from linepool import cli
from tests.servers import ENVIRONMENT, ServerProcess

FILES = {
    *("pyproject.toml", "linepool.toml", "README.md", "Dockerfile", ".dockerignore", ".gitignore"),
    *("stock_keeper/__init__.py", "stock_keeper/service.py", "tests/test_service.py"),
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that was just made."""
    directory = tmp_path_factory.mktemp("new") / "services" / "stock-keeper"
    assert cli.main(["new", str(directory)]) == 0
    return directory


def run(directory: Path, *words: str) -> tuple[int, str]:
    """Run a program in a directory; return its exit status and what it prints."""
    done = subprocess.run(
        words,
        cwd=directory,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=240,
    )
    return done.returncode, done.stdout


def test_it_has_all_its_files_with_its_names_in_them(project):
    made = {str(path.relative_to(project)) for path in project.rglob("*") if path.is_file()}

    assert {path for path in made if "cache" not in path} == FILES
    assert not [path for path in FILES if "{{" in (project / path).read_text(encoding="utf-8")]
    assert 'name = "stock-keeper"' in (project / "pyproject.toml").read_text(encoding="utf-8")


def test_its_tests_pass(project):
    status, said = run(project, sys.executable, "-m", "pytest", "-W", "error")

    assert (status, "3 passed" in said) == (0, True), said


@pytest.mark.parametrize(
    "words",
    [
        ("mypy", "--cache-dir=/dev/null"),
        ("ruff", "check", "--no-cache"),
        ("ruff", "format", "--check", "--no-cache"),
        ("hadolint", "Dockerfile"),
    ],
    ids=" ".join,
)
def test_its_files_have_no_faults(project, words):
    status, said = run(project, *words)

    assert status == 0, said


def test_its_dockerfile_copies_what_is_there_and_not_ignored(project):
    lines = (project / "Dockerfile").read_text(encoding="utf-8").splitlines()
    copied = {
        line.split()[1] for line in lines if line.startswith("COPY ") and "--from" not in line
    }
    sent = (project / ".dockerignore").read_text(encoding="utf-8").splitlines()

    assert copied == {line[1:] for line in sent if line.startswith("!")}
    assert all((project / name).exists() for name in copied)


def test_it_is_served_and_checked_without_a_target(project):
    command = ("-P", "-m", "linepool", "run", "--log-level")  # ServerProcess appends a word
    with ServerProcess(project, "info", command=command) as server:
        assert server.ask("ADD 2 3") == "5"
        assert server.ask("hello Ann") == "Hello, Ann."
        assert server.status()["workers"]
        assert server.order("RELOAD").startswith("generation 2")
        assert server.stop() == 0
    status, said = run(project, "linepool", "check")
    assert (status, said.splitlines()[0]) == (0, "stock-keeper: 5 commands")
    status, said = run(project, "linepool", "unit", "--name", "keeper", "--user", "keeper")
    assert status == 0
    assert "linepool run --control /run/keeper/control.sock\n" in said
    for name in ("schema", "stub"):
        status, said = run(project, "linepool", name)
        assert (status, "stock-keeper" in said) == (0, True), said


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("My Shop", "and begin with a letter; did you mean my-shop?"),
        ("1shop", "and begin with a letter; did you mean shop?"),
        ("shop.py", "and begin with a letter; did you mean shop?"),
        ("a__b", "and begin with a letter; did you mean a-b?"),
        ("--", "and begin with a letter"),
        ("json", "it would hide Python's module json; json-service would be possible"),
        ("linepool", "it would hide the module linepool, which the project needs; "),
        ("Tests", "it would hide the module tests, which the project needs; "),
        ("class", "class is a word of Python's own; class-service would be possible"),
    ],
)
def test_a_name_that_is_not_possible_is_refused_with_one_that_is(name, said, tmp_path, capsys):
    assert cli.main(["new", str(tmp_path / name)]) == 2

    assert f"a project cannot have the name {name!r}: " in (error := capsys.readouterr().err)
    assert said in error
    assert not [*tmp_path.iterdir()]


def test_a_directory_in_which_something_is_is_left_alone(tmp_path, capsys):
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / ".hidden").touch()
    (tmp_path / "stock").touch()

    for name, said in [("shop", "is not empty; give another name"), ("stock", "is a file; give")]:
        assert cli.main(["new", str(tmp_path / name)]) == 1
        assert said in capsys.readouterr().err
    assert [*(tmp_path / "shop").iterdir()] == [tmp_path / "shop" / ".hidden"]


def test_an_empty_directory_is_filled_and_what_to_do_next_is_said(tmp_path, capsys, monkeypatch):
    (tmp_path / "shop").mkdir()
    monkeypatch.chdir(tmp_path / "shop")

    assert cli.main(["new", "."]) == 0
    out, err = capsys.readouterr()
    assert sorted(Path(line).name for line in out.splitlines())[-1] == "test_service.py"
    assert err == "next:\n  pip install -e '.[test]'\n  pytest\n  linepool run\n"
    assert 'target = "shop"' in Path("linepool.toml").read_text(encoding="utf-8")
