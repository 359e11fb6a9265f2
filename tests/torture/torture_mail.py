"""Log-ins of several steps while workers are killed: a reply is right, or the connection ends."""

from __future__ import annotations

import random
import socket
from concurrent.futures import ThreadPoolExecutor

from tests.clients.harness import Killer
from tests.servers import EXAMPLES, TIMEOUT, run_server

KILLS = 60
CLIENTS = 6
PASSWORDS = {"c2VjcmV0": "235 2.7.0", "d3Jvbmc=": "535 5.7.8"}  # "secret" and "wrong"


def test_no_kill_and_no_move_mixes_up_the_steps_of_a_log_in(tmp_path):
    settings = {"MAIL_FILE": str(tmp_path / "mail.db"), "MAIL_PLAIN_AUTH": "on"}
    options = (
        *("--workers", "3", "--park-after", "0.002", "--log-requests", "line"),
        *("--max-requests", "50", "--poison-deaths", "0"),
    )
    with run_server(EXAMPLES / "mailbox" / "smtp.py", tmp_path, *options, **settings) as server:

        def log_in(number: int) -> tuple[int, int]:
            choose, done, lost = random.Random(number), 0, 0
            while killer.killed < KILLS:
                try:
                    converse(server.port, choose)
                    done += 1
                except (ConnectionError, EOFError):
                    lost += 1
            return done, lost

        with Killer(server, KILLS) as killer, ThreadPoolExecutor(CLIENTS) as pool:
            counts = list(pool.map(log_in, range(CLIENTS)))
        done, lost = map(sum, zip(*counts, strict=True))
        print(f"log-ins={done} connections_lost={lost} kills={killer.killed}")
        assert done > CLIENTS  # a log-in takes longer than it is between two kills
        assert not any(word in server.text for word in (*PASSWORDS, "Traceback", "internal error"))


def converse(port: int, choose: random.Random) -> None:
    """Log in once, or cancel; raises EOFError if the server ends the connection in between."""
    with (
        socket.create_connection(("127.0.0.1", port), TIMEOUT) as sock,
        sock.makefile("rb") as stream,
    ):

        def reply(line: str = "") -> str:
            if line:
                sock.sendall(f"{line}\r\n".encode())
            said = stream.readline().decode()
            if not said.endswith("\r\n"):
                raise EOFError
            return said.rstrip("\r\n")

        assert reply().startswith("220 ")
        assert reply("HELO me") == "250 mail.example"
        assert reply("AUTH LOGIN") == "334 VXNlcm5hbWU6"
        if choose.random() < 0.2:
            assert reply("*") == "501 5.7.0 Cancelled"
            return
        assert reply("YW5u") == "334 UGFzc3dvcmQ6"
        password = choose.choice([*PASSWORDS])
        assert reply(password).startswith(PASSWORDS[password])
        assert reply("QUIT") == "221 2.0.0 Bye"
