"""The examples of docs/security.md do what the page says."""

from __future__ import annotations

import base64
import re
from typing import Any

from tests.servers import ROOT

PAGE = (ROOT / "docs/security.md").read_text(encoding="utf-8")


BLOCKS = re.findall(r"^```(?:python)?\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_a_client_is_served_after_it_has_said_who_it_is():
    code, dialogue = BLOCKS[:2]
    names: dict[str, Any] = {}
    exec(code, names)
    ask = names["app"].ask
    lines = [line.removeprefix("> ") for line in dialogue.splitlines() if line.startswith("> ")]
    replies = [line for line in dialogue.splitlines() if not line.startswith("> ")]
    assert ask("\n".join(lines) + "\n").splitlines() == replies
    for words in ('ann ""', "ann wrong", 'bob ""'):
        assert ask(f"AUTH {words}") == "CLIENT_ERROR authentication failed"


def test_a_client_of_a_mail_server_logs_in():
    names: dict[str, Any] = {}
    exec(BLOCKS[2], names)
    right, wrong = (base64.b64encode(b"\0ann\0" + word).decode() for word in (b"secret", b"hush"))
    sent = [f"AUTH PLAIN {word}" for word in (wrong, "x", right)]
    assert names["mail"].ask("\r\n".join(["MAIL x", "AUTH LOGIN x", *sent])).splitlines() == [
        *("220 ready", "530 Authentication required", "504 PLAIN only"),
        *("535 authentication failed", "501 not PLAIN", "235 welcome"),
    ]
