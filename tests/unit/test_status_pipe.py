"""The status pipe: a reader knows when a record may have been refused, however small the pipe is."""

import fcntl

import pytest

from linepool.ipc.status_pipe import StatusPipe
from linepool.kernel import features
from linepool.kernel.pipes import quick_pipe
from linepool.pool.status import SIZE

RECORD = bytes(SIZE)


@pytest.mark.linux("the size of a pipe can be changed there only")
@pytest.mark.parametrize("pages", [1, 2, 16])
def test_what_a_full_pipe_held_says_that_a_record_may_be_missing(pages: int):
    ends = quick_pipe()
    fcntl.fcntl(ends[1], fcntl.F_SETPIPE_SZ, pages * 4096)
    pipe = StatusPipe(ends)
    for _ in range(pages * 4096 // SIZE + 1):  # the last one is refused
        pipe.report(RECORD)

    held = pipe.drain()

    assert len(held) == pages * 4096
    assert pipe.may_have_refused(held)
    assert not pipe.may_have_refused(held[: len(held) // 4])
    pipe.close()


def test_a_system_that_does_not_tell_the_size_may_have_pipes_of_one_page(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(features, "PIPE_SIZE", False)
    pipe = StatusPipe()
    for _ in range(4096 // SIZE):
        pipe.report(RECORD)

    assert pipe.may_have_refused(pipe.drain())
    assert not pipe.may_have_refused(RECORD)
    pipe.close()
