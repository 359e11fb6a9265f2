"""The package: its public names, and what importing it loads."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import linepool

PACKAGE = Path(linepool.__file__).parent
MOST_ATTRIBUTES = 30  # CPython shares the keys of an object's attributes up to here


def test_every_public_name_exists():
    assert all(hasattr(linepool, name) for name in linepool.__all__)


def test_importing_the_package_loads_no_heavy_modules():
    code = "import sys, linepool; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()

    assert not {"argparse", "asyncio", "ssl", "cattrs", "multiprocessing", "tomllib"} & set(loaded)


@pytest.mark.parametrize(
    ("file", "name"),
    [("worker/connection.py", "Connection"), ("conversation.py", "Conversation")],
)
def test_objects_made_for_each_connection_have_few_attributes(file, name):
    """With more, each attribute takes longer to read, and each object more memory."""
    tree = ast.parse((PACKAGE / file).read_text(encoding="utf-8"))
    (body,) = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name]
    assigned = {
        node.attr
        for node in ast.walk(body)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
    }

    assert 10 < len(assigned) <= MOST_ATTRIBUTES


def test_only_a_connection_writes_its_state():
    """Holders read ``needs`` and the like; an assignment from another file would hide a transition."""
    state = {"needs", "lingers", "lost_framing", "quiet_since", "arrival", "place"}
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        is_the_connection = path.name in ("connection.py", "core_connection.py")
        if not is_the_connection and any(f".{name}" in text for name in state):
            written = {
                node.attr
                for node in ast.walk(ast.parse(text))
                if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
            }
            assert not written & state, path
