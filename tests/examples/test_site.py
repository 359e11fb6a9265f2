"""The documentation site: every page is in its navigation, and the pages made from code have all there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from site_pages import (
    api,
    commands,
    errors,
    keywords,
    log_lines,
    metrics,
    navigation,
    places,
    source_texts,
    sources,
)

import linepool
from linepool.operate.command_list import COMMANDS
from tests.servers import ROOT

OPERATING = (ROOT / "docs" / "operating.md").read_text(encoding="utf-8")


def test_every_page_is_in_the_navigation():
    pages = {*sources.written_pages(), *sources.MADE}
    contents = [
        navigation.toctrees(pages),
        *(navigation.contents_of(page, pages) for page in pages),
    ]
    listed = [line.strip("/") for text in contents for line in text.splitlines()]
    assert [page for page in pages if listed.count(page) != (page != "index")] == []


def test_every_public_name_is_documented_once():
    names = [name for topic in api.TOPICS.values() for name in topic.names]
    assert len(names) == len({*names})
    assert {name for name in names if "." not in name} == {*linepool.__all__} - {"cache"}
    assert [page for page in api.PAGES.values() if not page().startswith("# ")] == []


def test_every_command_has_its_options_on_the_page():
    page = commands.page()
    for name in COMMANDS:
        section = page.partition(f"\n## linepool {name}\n")[2].partition("\n## ")[0]
        options = {
            option
            for action in commands.parser_of(name)._actions
            for option in action.option_strings
        }
        shown = {*re.findall(r"--?[a-z][a-z-]*", " ".join(re.findall(r"{option} (.*)", section)))}
        assert options - {"-h", "--help"} == shown, name


def test_the_events_of_the_log_are_found_in_the_source():
    found = {event.text: event for event in log_lines.events()}
    retired = found["worker retired pid=... requests=..."]
    assert (retired.module, retired.level) == ("master.pool", "as its cause")
    assert (
        found["TLS handshake failed peer=... listener=... why=... failures=..."].level == "warning"
    )
    calls = [call for file in ROOT.glob("linepool/**/*.py") for call in source_texts.calls(file)]
    logged = [call for call in calls if log_lines.is_of_logger(call)]
    assert [call for call in logged if not log_lines.template(call)] == []
    assert len(logged) > 100


def test_the_metrics_are_those_of_a_server():
    found = metrics.families(metrics.scraped())
    assert found["linepool_workers"].kind == "gauge"
    assert found["linepool_workers"].labels == {"state": ["starting", "idle", "busy", "leaving"]}
    assert found["linepool_request_duration_seconds"].kind == "histogram"
    assert [name for name, one in found.items() if not one.kind or not one.text] == []
    for name in re.findall(r"`(linepool_\w+)`", OPERATING):
        assert name in found


def test_the_errors_have_those_of_each_protocol():
    page = errors.page()
    assert "| `unknown command '...'....` | ERROR |" in page
    assert "| `without MULTI` | " not in page
    assert all(
        f"## {title}\n" in page for title in ("The line protocol", "Redis' protocol", "JSON-RPC")
    )


@pytest.mark.parametrize(
    ("file", "page"),
    [
        ("README.md", "index"),
        ("CHANGELOG.md", "changelog"),
        ("docs/tls.md", "tls"),
        ("examples/redis/README.md", "examples/redis"),
        ("examples/redis", "examples/redis"),
        ("examples/sums.py", "source/examples/sums.py"),
        ("examples/services", "source/examples/services/index"),
    ],
)
def test_a_file_has_its_place_in_the_site(file, page):
    assert places.page_of(ROOT / file) == page


def test_links_lead_to_the_places_in_the_site():
    text = "[a](../../docs/tls.md#starttls) [b](redis_server.py) [c](#scripts)\n```\n[d](layout.py)\n```\n"
    linked: list[Path] = []
    found = places.with_links(text, ROOT / "examples" / "redis" / "README.md", linked.append)
    assert found == text.replace("../../docs/tls.md", "../tls.md").replace(
        "(redis_server.py)", "(../source/examples/redis/redis_server.py.md)"
    )
    assert linked == [ROOT / "docs" / "tls.md", ROOT / "examples" / "redis" / "redis_server.py"]


def test_each_word_that_readers_search_for_leads_to_one_heading():
    words = [word for listed in keywords.KEYWORDS.values() for word in listed]
    assert len(words) == len({*words})
    pages = {
        name: file.read_text(encoding="utf-8") for name, file in sources.written_pages().items()
    }
    for target in keywords.KEYWORDS:
        name, _, anchor = target.partition("#")
        if name not in sources.MADE:
            assert "\n```{index} ! " in keywords.with_keywords(name, pages[name])[0]
            heads = re.findall(r"^#+ (.+)$", pages[name], re.MULTILINE)
            assert not anchor or anchor in map(keywords.slug, heads), target


def test_the_front_page_shows_what_happens(default_app):
    text = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    code = text.partition("```python\n")[2].partition("```")[0]
    exec(code, {"__name__": "sums"})
    assert default_app.ask("ADD 2 3") == "5"
    assert "SPIN" in default_app.ask("HELP")
