"""A dialogue whose commands ask their client, for tests of where the connection is meanwhile."""

import os
import time

import linepool

app = linepool.App(protocol=linepool.Dialogue.smtp())


@app.handler
def sum_(answers: linepool.Answers) -> str | linepool.Ask:
    """Ask for two numbers; each reply begins with the worker's pid."""
    if len(answers) < 2:
        return linepool.Ask(f"350 {os.getpid()} {len(answers)}")
    return f"{os.getpid()} {sum(map(int, answers))}"


@app.handler
def sleep() -> None:
    """Occupy the worker until it is killed."""
    time.sleep(600)


@app.handler(timeout=0.2)
def hang(answers: linepool.Answers) -> linepool.Ask:
    """Ask, then run until the worker is killed."""
    if not answers:
        return linepool.Ask("350 what?")
    while True:
        try:
            time.sleep(60)
        except BaseException:  # noqa: BLE001 - only a kill is to end it
            continue


@app.handler
def starttls(answers: linepool.Answers) -> linepool.Reply | linepool.Ask:
    """Ask before TLS begins."""
    if not answers:
        return linepool.Ask("350 sure?")
    return linepool.Reply((220, "begin"), start_tls=True)
