"""The example of the page on requests that wait, served and asked."""

from __future__ import annotations

import re
from pathlib import Path

from tests.conftest import Launch

PAGE = Path(__file__).parents[2] / "docs" / "waiting.md"


def test_the_example_of_the_page_is_a_job_queue(launch: Launch, tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "jobs.py").write_text(code)
    server = launch(tmp_path / "jobs.py", "--workers", "2")

    with server.connect() as peer:
        peer.send(b"TAKE mail\n")
        assert server.ask("PUT mail to Ann") == "OK"
        assert peer.line() == "to Ann"
        assert peer.ask("TAKE mail 0.01") == "none"
