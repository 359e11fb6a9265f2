"""An app behind a load balancer: it notes each request that it runs, in the file that JOURNAL names."""

import os
import random
import time

import linepool

app = linepool.App("balanced")
_NAME = os.environ.get("NAME", "-")
_MEAN_S = float(os.environ.get("MEAN_S", "0"))
_journal = os.open(os.environ["JOURNAL"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


@app.handler
def note(number: str) -> str:
    """Note a request; return the server's name and the request's number."""
    if _MEAN_S:
        time.sleep(random.expovariate(1 / _MEAN_S))
    os.write(_journal, f"{number}\n".encode())
    return f"{_NAME} {number}"
