"""What processes share is taken over by one that is not a fork of its maker."""

import fcntl
import json
import os
import selectors
import socket
import subprocess
import sys

import pytest

from linepool.ipc.board import Board, MasterView, WorkerView, layout_hash, words
from linepool.kernel.binding import bind_unix
from linepool.kernel.listeners import Listener
from linepool.kernel.shared_memory import SharedMemory
from linepool.operate.log_limit import REPORTS, LogLimit
from linepool.pool.status import State
from linepool.pubsub.bus import Bus

TIMEOUT = 20
LAYOUT = 0xE48B0885
"""What ``layout_hash`` returns; another value says that this version shares nothing with the one before."""


def exec_with(handed_over, code: str) -> str:
    """Run code in a new interpreter, with ``facts`` and ``descriptors``; return what it prints."""
    facts, descriptors = handed_over
    given = json.dumps([facts, descriptors])
    head = "import json, sys\nfacts, descriptors = json.loads(sys.argv[1])\n"
    done = subprocess.run(
        [sys.executable, "-c", head + code, given],
        pass_fds=descriptors,
        stdout=subprocess.PIPE,
        timeout=TIMEOUT,
        check=True,
        text=True,
    )
    return done.stdout.strip()


def test_the_layout_is_the_one_that_is_written_down():
    assert layout_hash() == LAYOUT


def test_shared_memory_is_written_by_both_and_keeps_its_size():
    memory = SharedMemory(10, "test")
    memory.map[0] = 7

    printed = exec_with(
        ({"size": 10}, [memory.descriptor]),
        "from linepool.kernel.shared_memory import SharedMemory\n"
        "import os\n"
        "memory = SharedMemory.attach(descriptors[0], facts['size'])\n"
        "print(memory.map[0], memory.descriptor >= 1000, os.get_inheritable(memory.descriptor))\n"
        "memory.map[1] = 8\n",
    )

    assert printed == "7 True False"
    assert memory.map[1] == 8
    for size in 0, 9, 11:
        with pytest.raises(PermissionError):
            os.ftruncate(memory.descriptor, size)
    with pytest.raises(PermissionError):  # and no process can make it impossible to write
        fcntl.fcntl(memory.descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)


def test_shared_memory_has_one_descriptor_and_closes_it():
    before = set(os.listdir("/proc/self/fd"))
    memory = SharedMemory(10, "test")

    assert set(os.listdir("/proc/self/fd")) - before == {str(memory.descriptor)}

    memory.close()
    assert set(os.listdir("/proc/self/fd")) == before
    memory.map[0] = 7  # it stays
    del memory


def test_what_is_not_shared_memory_of_that_size_is_refused():
    memory = SharedMemory(10, "test")
    unsealed = os.memfd_create("test", os.MFD_ALLOW_SEALING)
    with socket.socket() as sock:
        with pytest.raises(ValueError, match="the shared memory has 10 bytes, not 11"):
            SharedMemory.attach(memory.descriptor, 11)
        with pytest.raises(ValueError, match="is not shared memory: its seals are 0x0"):
            SharedMemory.attach(unsealed, 0)
        with pytest.raises(ValueError, match=r"is not shared memory: "):
            SharedMemory.attach(sock.fileno(), 10)
    os.close(unsealed)
    assert len(os.pread(memory.descriptor, 100, 0)) == 10  # it is still open


def test_a_board_is_taken_over_and_protected():
    board = Board(4)
    MasterView(board).new_worker(2)
    WorkerView(board, 2).changed(State.IDLE, 77)

    printed = exec_with(
        board.handed_over(),
        "import os\n"
        "from linepool.ipc.board import Board, MasterView, WorkerView\n"
        "board = Board.taken_over(facts, descriptors)\n"
        "print(MasterView(board).slot(2).since_ns, WorkerView(board, 1).places, flush=True)\n"
        "pid = os.fork()\n"
        "if not pid:\n"
        "    board.protect(2)\n"
        "    WorkerView(board, 2).holds(3)\n"
        "    WorkerView(board, 1).holds(3)\n"
        "print(os.waitpid(pid, 0)[1])\n",
    )

    assert printed.split() == ["77", "4", "11"]  # SIGSEGV
    assert MasterView(board).slot(2).held == 3
    assert MasterView(board).slot(1).held == 0


def test_a_board_of_another_layout_is_refused():
    board = Board(4)
    facts, (descriptor,) = board.handed_over()
    for word, what in (words.MAGIC, "magic number"), (words.LAYOUT, "layout"):
        before = board.head[word]
        board.head[word] = 5
        copy = os.dup(descriptor)
        with pytest.raises(
            ValueError, match=f"the board's layout is another: its {what} is 0x5, not {before:#x}"
        ):
            Board.taken_over(facts, [copy])
        board.head[word] = before

    with pytest.raises(
        ValueError, match=r"the board's layout is another: the shared memory has \d+"
    ):
        Board.taken_over({"held": 4000}, [os.dup(descriptor)])
    with pytest.raises(
        ValueError, match="the board's layout is another: its number of places is 0x4, not 0x5"
    ):
        Board.taken_over({"held": 5}, [os.dup(descriptor)])


def test_messages_come_through_a_bus_that_was_taken_over():
    bus = Bus(3)
    endpoint = bus.endpoint(1)
    assert endpoint is not None
    endpoint.subscribe([(False, b"news")])

    printed = exec_with(
        bus.handed_over(),
        "from linepool.pubsub.bus import Bus\n"
        "from linepool.kernel.standard import with_high_number\n"
        "bus = Bus.taken_over(facts, descriptors, with_high_number)\n"
        "end = bus.endpoint(0)\n"
        "end.subscribe([(True, b'n*')])\n"
        "print(end.publish(b'news', b'hello'), list(end.messages()), min(bus.descriptors()) >= 1000)\n",
    )

    assert printed == "2 [(b'news', b'hello')] True"
    assert list(endpoint.messages()) == [(b"news", b"hello")]
    assert endpoint.patterns() == 1
    facts, descriptors = bus.handed_over()
    with pytest.raises(ValueError, match="the bus's layout is another: 'x', not"):
        Bus.taken_over({**facts, "layout": "x"}, descriptors)
    with pytest.raises(ValueError, match="a bus of 3 slots has 7 descriptors, not 6"):
        Bus.taken_over(facts, descriptors[1:])
    bus.close()


def test_a_listener_is_taken_over_and_removed_by_its_maker_only(tmp_path):
    path = str(tmp_path / "socket")
    sock = bind_unix(path, 0o600)
    sock.listen()
    sock.setblocking(False)
    listener = Listener(sock, path)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)

        printed = exec_with(
            listener.handed_over(),
            "from linepool.kernel.listeners import Listener\n"
            "one = Listener.taken_over(facts, descriptors)\n"
            "conn, _ = one.accept()\n"
            "conn.sendall(b'hello')\n"
            "print(one.name, one.names, one.owned, one.is_unix, one.socket.getblocking())\n"
            "one.shut()\n"
            "one.remove()\n",
        )

        assert printed == f"unix:{path} ['unix:{path}'] True True False"
        assert client.recv(10) == b"hello"
    assert listener.is_shut
    assert os.path.exists(path)  # that process has not made it
    facts, descriptors = listener.handed_over()
    again = Listener.taken_over(facts, [os.dup(number) for number in descriptors])
    again.remove()  # as after exec
    assert not os.path.exists(path)
    listener.remove()


def test_what_is_not_a_listener_is_refused():
    with socket.create_server(("127.0.0.1", 0)) as sock:
        listener = Listener(sock)
        facts, descriptors = listener.handed_over()
        with socket.create_connection(sock.getsockname()) as client:
            wrong = [os.dup(client.fileno()), os.dup(descriptors[1])]
            with pytest.raises(ValueError, match=r"is not the listener 127\.0\.0\.1:"):
                Listener.taken_over(facts, wrong)
        listener.close()


def test_lines_of_one_kind_are_counted_together_after_a_take_over():
    limit = LogLimit(REPORTS + 2)
    assert limit.admits(30, "kind", 100.0)

    with selectors.DefaultSelector() as selector:
        selector.register(limit.timer, selectors.EVENT_READ)
        printed = exec_with(
            limit.handed_over(),
            "from linepool.operate import log_limit\n"
            "log_limit.FIRST_REPORT = 0.01\n"
            "limit = log_limit.LogLimit.taken_over(facts, descriptors)\n"
            "print([limit.admits(30, 'kind', 101.0) for _ in range(3)])\n",
        )
        assert selector.select(TIMEOUT)

    assert printed == "[True, False, False]"
    (left_out,) = limit.ended(102.0)
    assert (left_out.count, left_out.text) == (2, "kind")
    facts, descriptors = limit.handed_over()
    with pytest.raises(ValueError, match="the layout of the log's counts is another: 'x', not"):
        LogLimit.taken_over({**facts, "layout": "x"}, descriptors)
