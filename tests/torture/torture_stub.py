"""Pyright, in its strict mode, accepts what ``linepool stub`` prints, and finds mistakes of its callers."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

from linepool import cli
from tests.process.test_stub import CALLER, MISTAKES, lines_with_mistakes
from tests.servers import ROOT


def test_pyright_accepts_stubs_and_finds_mistakes_of_their_callers(tmp_path: Path) -> None:
    for target in ("tests/handlers/wide.py", "examples/services/fraud.py"):
        file = tmp_path / f"{Path(target).stem}_client.py"
        assert cli.main(["stub", f"{ROOT / target}:app", "-o", str(file)]) == 0
    shutil.copy(CALLER, tmp_path)
    (tmp_path / "mistakes.py").write_text(MISTAKES, encoding="utf-8")
    settings = {
        "typeCheckingMode": "strict",
        "include": ["*.py"],
        "extraPaths": [str(ROOT)],
        "pythonVersion": "3.11",
    }
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    found = [
        (Path(one["file"]).name, one["range"]["start"]["line"] + 1)
        for one in json.loads(done.stdout)["generalDiagnostics"]
    ]
    assert {name for name, _ in found} == {"mistakes.py"}, done.stdout
    assert {line for _, line in found} == lines_with_mistakes()
