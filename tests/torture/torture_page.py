"""The page in Chromium: what it shows, what it asks for, and that the browser complains of nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Launch
from tests.examples.page_scenes import HOSTILE, INCIDENT, KINDS, Played, Scene, played
from tests.process.test_exporter import address, until_page
from tests.torture.browser import PHONE, WIDE, Browser, browser

CALL = {"file": "<img src=x>", "line": 1, "function": "<img src=y>"}
SENTENCE = "document.querySelector('.sentence').textContent"


@pytest.fixture
def chromium(tmp_path: Path) -> Iterator[Browser]:
    """Give a browser that has complained of nothing when the test is over."""
    with browser(tmp_path / "chromium") as found:
        yield found
        assert not found.complaints


@pytest.fixture(params=["quiet", "saturated", "kills"])
def scene(request: pytest.FixtureRequest) -> Iterator[Played]:
    """Give an exporter with a scene."""
    with played(Scene(request.param)) as exporter:
        yield exporter


def show(
    page: Browser, exporter: Played, size: tuple[int, int] = WIDE, theme: str = "light"
) -> None:
    """Open the page, and wait until it shows something."""
    page.open(exporter.address, size, theme)
    page.until(f"{SENTENCE} !== 'Waiting for the first figures.'")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, PHONE, (320, 600)])
def test_nothing_scrolls_sideways_and_nothing_is_asked_of_others(chromium, scene, size, theme):
    show(chromium, scene, size, theme)
    chromium.until(
        "document.querySelectorAll('#commands tbody tr').length", lambda count: count == 5
    )

    assert chromium.value("document.documentElement.scrollWidth <= innerWidth")
    assert chromium.value("document.documentElement.dataset.theme") == theme
    assert all(one.startswith((scene.address, "data:")) for one in chromium.asked)
    assert chromium.value("document.querySelectorAll('[style]').length") > 0  # set by the script
    wider = "one => one.getBoundingClientRect().right > innerWidth + 1"
    found = f"[...document.querySelectorAll('main *')].filter({wider}).map(one => one.outerHTML)"
    assert chromium.value(found) == []


def test_text_of_clients_and_apps_is_only_shown(chromium):
    incident = {**INCIDENT, "command": HOSTILE.name, "why": "<i>why</i>", "stack": [CALL]}
    with played(Scene("kills", (*KINDS, HOSTILE)).has_incidents(incident)) as exporter:
        exporter.scene.last.state["name"] = "<b>shop</b>"
        exporter.scene.last.state["workers"][0]["command"] = HOSTILE.name
        show(chromium, exporter)

        names = "[...document.querySelectorAll('#commands td.name')].map(one => one.textContent)"
        assert HOSTILE.name in chromium.until(names)
        assert chromium.value("document.querySelector('h1').textContent") == "<b>shop</b>"
        assert "<img src=x>" in chromium.value("document.querySelector('pre').textContent")
        assert chromium.value("document.querySelectorAll('b, main i:not(.key i), img').length") == 0


def test_the_keyboard_reaches_everything_and_moves_the_crosshair(chromium):
    with played(Scene("kills").has_incidents(INCIDENT)) as exporter:
        show(chromium, exporter)
        seen = []
        for _ in range(20):
            chromium.press("Tab", 9)
            seen.append(
                chromium.value("document.activeElement.id || document.activeElement.textContent")
            )
            if seen[-1] == "at":
                chromium.press("ArrowLeft", 37)
                assert "busy" in chromium.value(
                    "document.activeElement.getAttribute('aria-valuetext')"
                )
                assert chromium.value("document.querySelectorAll('.cross').length") == 4
                assert chromium.value("document.activeElement.getBoundingClientRect().width") > 50
            if chromium.value("document.activeElement.tagName") == "SUMMARY":
                chromium.press("Enter", 13)

    assert {"theme", "at", "5 min", "15 min", "60 min", "status.json", "metrics"} <= set(seen)
    assert chromium.value("document.querySelector('details').open") or chromium.value(
        "document.querySelectorAll('pre').length"
    )


def test_what_a_screen_reader_says(chromium):
    with played(Scene("saturated")) as exporter:
        show(chromium, exporter)

        labels = chromium.value(
            "[...document.querySelectorAll('svg.plot')].map(one => one.getAttribute('aria-label'))"
        )
        assert [label.partition(":")[0] for label in labels] == [
            f"{title}, 5 minutes"
            for title in ("Workers busy", "Clients that wait", "Requests", "Latency with waiting")
        ]
        assert "2 workers died or were killed" in labels[0]
        assert (
            chromium.value("document.querySelectorAll('[role=img]:not([aria-label])').length") == 0
        )
        assert (
            chromium.value("document.querySelectorAll('table:not([hidden]) caption').length") == 2
        )
        said = "document.querySelector('[aria-live]').textContent"
        before = chromium.value(said)
        assert before.endswith("clients wait, and the pool cannot grow.")
        exporter.scene = Scene("quiet")
        assert chromium.until(said, lambda text: text != before).startswith("No client waits")


def test_a_page_without_answers_turns_grey_and_lives_again(chromium):
    with played(Scene("quiet")) as exporter:
        show(chromium, exporter)
        exporter.is_silent.set()

        text = chromium.until(
            "document.body.classList.contains('stale') && document.getElementById('live').textContent"
        )
        assert text.startswith("no answer since ")
        assert "grayscale" in chromium.value(
            "getComputedStyle(document.querySelector('main')).filter"
        )

        exporter.is_silent.clear()
        exporter.goes_on.set()
        chromium.until("!document.body.classList.contains('stale')")


def test_a_hidden_page_asks_nothing(chromium):
    with played(Scene("quiet")) as exporter:
        show(chromium, exporter)
        hidden = "Object.defineProperty(document, 'hidden', {configurable: true, get: () => %s})"
        told = "document.dispatchEvent(new Event('visibilitychange'))"
        chromium.value(f"{hidden % 'true'}; {told}; 0")
        chromium.until("!isAsking")
        asked = len(chromium.asked)
        chromium.value("new Promise(done => setTimeout(done, 2500))")
        assert len(chromium.asked) == asked

        chromium.value(f"{hidden % 'false'}; {told}; 0")
        chromium.until("!isAsking")
        assert len(chromium.asked) > asked


def test_incidents_show_their_stacks_behind_a_click(chromium):
    with played(Scene("kills").has_incidents(INCIDENT)) as exporter:
        show(chromium, exporter)
        assert (
            chromium.until("document.querySelector('.kind, .mark.dead').textContent")
            == "killed, 2 times"
        )
        stays = "window.kept = document.querySelector('details'); kept.open = true; 0"
        chromium.value(stays)
        chromium.until("document.getElementById('incidents-key').textContent")
        exporter.scene.has_incidents({**INCIDENT, "change": 8, "count": 3})

        chromium.until(
            "kept.querySelector('.mark').textContent", lambda text: text == "killed, 3 times"
        )

        assert chromium.value("kept.isConnected && kept.open")
        exporter.scene.has_incidents({**INCIDENT, "change": 2, "number": 1})  # of another memory
        chromium.until(
            "document.querySelector('.mark.dead').textContent",
            lambda text: text == "killed, 2 times",
        )
        assert chromium.value("document.querySelectorAll('#incident-list > *').length") == 1
        assert "/srv/shop/search.py, line 118" in chromium.value(
            "kept.querySelector('pre').textContent"
        )


def test_an_hour_is_drawn(chromium):
    with played(Scene("quiet")) as exporter:
        show(chromium, exporter)
        chromium.value("[...document.querySelectorAll('#spans button')][2].click()")

        assert "60 min ago" in chromium.value("document.querySelector('svg.plot').textContent")


def test_a_real_server(chromium, launch: Launch):
    server = launch("workshop.py", "--workers", "2", "--http", "127.0.0.1:0")
    until_page(server, "/status.json", lambda page: page.status == 200)
    chromium.open(f"http://{address(server)}/")
    server.converse(b"ADD 1 2\n" * 20)

    name = "document.querySelector('#commands td.name')?.textContent"
    chromium.until(name, lambda name: name == "ADD")
    assert chromium.value(SENTENCE) == "No client waits: 0 of 2 workers are busy."
    rows = chromium.value("rows.length")
    chromium.until("rows.length", lambda count: count > rows)
