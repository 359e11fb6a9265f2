"""What the page on the client shows is what happens."""

import re
import sys

import linepool
from linepool.app import App
from linepool.testing import serve
from tests.examples.test_docs import blocks
from tests.servers import ROOT

PAGE = (ROOT / "docs/client.md").read_text(encoding="utf-8")
PRINT = re.compile(r"^ *print\((.*?)\) *# (.*)$", re.MULTILINE)


def test_the_code_of_the_page_prints_what_its_comments_say(tmp_path, monkeypatch, capsys):
    app = App()
    monkeypatch.setattr(linepool, "handler", app.handler)
    monkeypatch.syspath_prepend(tmp_path)
    first, *others = blocks(PAGE, "python")
    (tmp_path / "sums.py").write_text(first, encoding="utf-8")
    __import__("sums")
    try:
        with serve(app, workers=1) as server:
            code = "\n".join(others).replace("127.0.0.1:7000", server.address)
            names: dict[str, object] = {"__name__": "page"}
            exec(code, names)
            for one in names.values():
                if isinstance(one, linepool.Client):
                    one.close()
    finally:
        del sys.modules["sums"]

    shown = [said for _, said in PRINT.findall("\n".join(others))]
    assert len(shown) >= 10
    printed = capsys.readouterr().out.splitlines()
    assert [line for line in printed if line not in ("2", "1")] == shown
