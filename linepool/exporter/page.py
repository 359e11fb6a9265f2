"""The page: one file, with its script and its style in it. Runs in the exporter."""

from __future__ import annotations

import base64
import hashlib
import re
from importlib import resources

from linepool.exporter.server import Answer


def page() -> Answer:
    """Return the page, with a policy that lets a browser run what is in it, and nothing else."""
    text = resources.files("linepool.exporter").joinpath("page.html").read_text(encoding="utf-8")
    policy = (
        f"default-src 'none'; script-src {_hashes(text, 'script')}; style-src {_hashes(text, 'style')};"
        " img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return Answer(text.encode(), "text/html; charset=utf-8", policy=policy)


def _hashes(text: str, tag: str) -> str:
    """Return what the policy names the elements of a tag by: their SHA-256."""
    found = re.findall(rf"<{tag}>(.*?)</{tag}>", text, flags=re.DOTALL)
    digests = (hashlib.sha256(one.encode()).digest() for one in found)
    return " ".join(f"'sha256-{base64.b64encode(one).decode()}'" for one in digests)
