"""The page of the exporter, as far as that needs no browser: see tests/torture/torture_page.py."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest

from linepool.exporter.page import page

VOID = {"meta", "link", "input"}


class Reader(HTMLParser):
    """Reads a page.

    Attributes:
        texts: The texts of its elements, by tag.
        facts: All attributes: the tag, the name and the value.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.texts: dict[str, list[str]] = {}
        self.facts: list[tuple[str, str, str | None]] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.facts += [(tag, name, value) for name, value in attrs]
        if tag not in VOID:
            self._open.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open:
            self.texts[self._open[-1]][-1] += data


@pytest.fixture(scope="module")
def text() -> str:
    """Give the page."""
    return page().body.decode()


@pytest.fixture(scope="module")
def reader(text: str) -> Reader:
    """Give the page as it is read."""
    return Reader(text)


def test_the_policy_allows_the_script_and_the_style_that_are_there(reader: Reader):
    policy = dict(part.strip().split(" ", 1) for part in page().policy.split(";"))

    for tag in ("script", "style"):
        (inside,) = reader.texts[tag]
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert policy[f"{tag}-src"] == f"'sha256-{digest}'"
    assert policy["default-src"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert policy["frame-ancestors"] == "'none'"
    assert policy["connect-src"] == "'self'"


def test_nothing_in_it_needs_another_host_or_what_the_policy_forbids(text: str, reader: Reader):
    assert set(re.findall(r"https?://[^\s\"'`]*", text)) == {"http://www.w3.org/2000/svg"}  # a name
    assert "url(" not in text
    assert "@import" not in text
    names = {name for _, name, _ in reader.facts}
    assert "style" not in names
    assert not {name for name in names if name.startswith("on")}
    links = {value for _, name, value in reader.facts if name in ("href", "src")}
    assert links == {"data:,", "status.json", "metrics"}


@pytest.mark.parametrize(
    "wrong",
    [
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "DOMParser",
        "srcdoc",
    ],
)
def test_text_can_be_nothing_but_text(text: str, wrong: str):
    assert wrong not in text


def test_what_the_script_looks_for_is_there(text: str, reader: Reader):
    there = [value for _, name, value in reader.facts if name == "id"]

    assert len(there) == len(set(there))
    assert set(re.findall(r'\$\("([\w-]+)"\)', text)) <= set(there)
    labelled = {value for _, name, value in reader.facts if name == "aria-labelledby"}
    assert labelled <= set(there)
