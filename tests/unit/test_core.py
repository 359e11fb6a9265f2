"""Which implementation runs, and what is built and packed for it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from linepool import __version__, core

PACKAGE = Path(core.__file__).parent
SHOW = "from linepool import core; print(core.compiled, core.about, sep='\\n')"


def run(code, **environment):
    clean = {name: value for name, value in os.environ.items() if name != core.VARIABLE}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=clean | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


def test_a_variable_chooses_pure_python():
    compiled, about = run(SHOW, LINEPOOL_PURE="1")

    assert compiled == "False"
    assert about.startswith(f"linepool {__version__}, pure Python (LINEPOOL_PURE is set), ")


@pytest.mark.parametrize("value", [" ", "0"])
def test_a_variable_that_is_empty_or_0_does_not(value):
    assert run(SHOW, LINEPOOL_PURE=value) == run(SHOW)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        ("ModuleNotFoundError('no turn')", "the compiled core is not built"),
        ("ImportError('wrong ABI')", "the compiled core cannot be loaded: wrong ABI"),
    ],
)
def test_a_core_that_cannot_be_imported_leaves_pure_python_and_a_reason(error, reason):
    hide = f"""
import sys
class Hide:
    def find_spec(self, name, path, target=None):
        if name.startswith("linepool.core.") and name != "linepool.core.plain":
            raise {error}
sys.meta_path.insert(0, Hide())
"""
    compiled, about = run(hide + SHOW)

    assert compiled == "False"
    assert f"pure Python ({reason}), " in about


def test_the_command_line_shows_what_runs():
    shown = run("import sys, linepool.cli; linepool.cli.main(['--version'])", LINEPOOL_PURE="1")

    assert shown == run(SHOW, LINEPOOL_PURE="1")[1:]


def test_every_compiled_module_has_its_types():
    assert {path.stem for path in PACKAGE.glob("*.pyx")} <= {
        path.stem for path in PACKAGE.glob("*.pyi")
    }
