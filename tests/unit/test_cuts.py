"""Every protocol: no bytes make it raise, and no cut and no move between processes changes the replies."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS, Target, check


@pytest.fixture(scope="module", params=TARGETS)
def target(request: pytest.FixtureRequest) -> Target:
    return TARGETS[request.param]()


@settings(max_examples=100)
@given(data=st.data())
def test_no_cut_and_no_move_changes_the_replies_to_any_stream(target, data):
    token = st.sampled_from(target.tokens)
    pieces = data.draw(st.lists(st.one_of(token, token, st.binary(max_size=4)), max_size=12))

    check(target, b"".join(pieces))
