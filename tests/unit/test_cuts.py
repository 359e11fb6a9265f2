"""Every protocol: no bytes make it raise, and no cut and no move between processes changes the replies."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS, Target, check

CORPUS = Path(__file__).parents[1] / "fuzz" / "corpus"


@pytest.mark.parametrize("name", TARGETS)
def test_no_cut_and_no_move_changes_the_replies_to_the_corpus(name):
    target = TARGETS[name]()
    for path in sorted((CORPUS / name).iterdir()):
        check(target, path.read_bytes())


@pytest.mark.parametrize("end", [b"\r\n", b"\n"])
@pytest.mark.parametrize("size", [65535, 65536, 65537])
def test_an_inline_command_of_redis_beyond_its_limit_is_refused_however_it_is_cut(size, end):
    target = TARGETS["resp"]()
    stream = b"PING " + b"x" * (size - 5) + end + b"PING\r\n"
    whole = target.replies([stream])

    assert target.replies([stream[at : at + 50] for at in range(0, len(stream), 50)]) == whole
    assert target.replies([stream[:size], stream[size:]], moving=True) == whole


@pytest.fixture(scope="module", params=TARGETS)
def target(request: pytest.FixtureRequest) -> Target:
    return TARGETS[request.param]()


@given(data=st.data())
def test_no_cut_and_no_move_changes_the_replies_to_any_stream(target, data):
    token = st.sampled_from(target.tokens)
    pieces = data.draw(st.lists(st.one_of(token, token, st.binary(max_size=4)), max_size=12))

    check(target, b"".join(pieces))
