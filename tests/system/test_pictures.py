"""The pictures in the docs show what the commands write now."""

from __future__ import annotations

from tests.conftest import Launch
from tests.examples import pictures
from tests.servers import EXAMPLES


def test_the_pictures_in_the_docs_are_up_to_date():
    for name, svg in pictures.pictures().items():
        shown = (pictures.PICTURES / f"{name}.svg").read_text(encoding="utf-8")
        assert shown == svg, f"{name}: run ./dev python -m tests.examples.pictures"


def test_the_state_in_the_picture_has_the_keys_of_a_server(launch: Launch):
    server = launch(str(EXAMPLES / "sums.py"), "--workers", "1")

    assert pictures.keys(pictures.STATE) == pictures.keys(server.status())
