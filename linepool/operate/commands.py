"""The commands of the control socket. Their handlers run in the master's loop, so none of them waits."""

from __future__ import annotations

import json
import math
from concurrent.futures import Future
from typing import Literal

from attrs import asdict

from linepool.app import App
from linepool.digits import is_whole
from linepool.errors import ClientError, ServerError, SetupError
from linepool.master.bans import MOST_SECONDS, BanList
from linepool.master.master import Master
from linepool.master.outcome import Outcome
from linepool.master.planned_drain import MOST_SECONDS as MOST_SECONDS_BEFORE
from linepool.master.stacks import Stack, Stacks
from linepool.operate import stacks as stacks_report
from linepool.operate.report import status, waiters
from linepool.operate.shown import events_as_lines, stacks_as_lines, state_as_lines, stats_as_lines
from linepool.operate.stats import stats
from linepool.operate.upgrading import UpgradeReply
from linepool.settings import Workers, parse_setting
from linepool.settings.networks import parsed_networks


def commands(master: Master) -> App:
    """Return the app that the control socket serves."""
    app = App("control")
    _add_reports(app, master)
    _add_orders_to_the_server(app, master)
    _add_orders_to_the_pool(app, master)
    _add_bans(app, master)
    _add_reload(app, master)
    _add_upgrade(app, master)
    return app


def _add_reports(app: App, master: Master) -> None:
    asked = Stacks(master)
    master.watch(asked)

    @app.handler("STATUS")
    def status_(form: Literal["text", "json"] = "text") -> str | list[str]:
        """Show the state of the server; as JSON on one line if asked."""
        state = status(master)
        return json.dumps(state) if form == "json" else state_as_lines(state)

    @app.handler("STATS")
    def stats_(
        form: Literal["text", "json"] = "text", detail: Literal["brief", "buckets"] = "brief"
    ) -> str | list[str]:
        """Show how often each command was served, how that ended, and how long it took."""
        found = stats(master, with_buckets=detail == "buckets")
        return json.dumps(found) if form == "json" else stats_as_lines(found)

    @app.handler
    def events(form: Literal["text", "json"] = "text", since: int = 0) -> str | list[str]:
        """Show the last incidents, the newest last; since: only what has changed after that change."""
        found = master.incidents.records(since)
        return json.dumps(found) if form == "json" else events_as_lines(found)

    @app.handler
    def stacks(
        form: Literal["text", "json"] = "text", how: Literal["quiet", "signal"] = "quiet"
    ) -> Future[object]:
        """Show what each worker does; signal: in C code too, where it may end a wait."""
        rows = stacks_report.doing(master)

        def finish(found: dict[int, Stack]) -> object:
            shown = stacks_report.with_stacks(rows, found)
            return json.dumps(shown) if form == "json" else stacks_as_lines(shown, waiters(master))

        return asked.ask(finish, by_signal=how == "signal")


def _add_orders_to_the_server(app: App, master: Master) -> None:
    @app.handler
    def stop(how: Literal["graceful", "now"] = "graceful") -> str:
        """Stop the server: gracefully, waiting for in-flight requests, or now."""
        master.stop(graceful=how == "graceful")
        return "stopping gracefully" if how == "graceful" else "stopping now"

    @app.handler
    def reopen() -> str:
        """Open the log file and the recording anew, after they were renamed."""
        paths, errors = master.reopening.run()
        if errors:
            raise ServerError("; ".join(errors))
        if not paths:
            raise ClientError("there is no file to open anew: the log goes to standard error")
        return f"opened anew {' '.join(paths)}"


def _add_orders_to_the_pool(app: App, master: Master) -> None:
    @app.handler
    def scale(workers: str) -> str:
        """Set the size of the pool: N or MIN:MAX, or +N or -N to move both bounds."""
        bounds = _scaled(master.settings.workers, workers)
        master.scale(bounds)
        return f"workers {bounds}"

    @app.handler
    def drain(after: float = 0.0) -> str:
        """Have all workers finish and leave, now or in some seconds; SCALE or RELOAD fills the pool again."""
        if not 0 <= after <= MOST_SECONDS_BEFORE:
            raise ClientError(f"after must be 0 to {MOST_SECONDS_BEFORE:g} seconds, not {after:g}")
        if why := master.empty(after):
            raise ServerError(why)
        return f"draining in {after:g} s" if master.planned_drain else "draining"

    @app.handler
    def kill(slot: int) -> str:
        """Kill the worker in a slot; another one takes its place."""
        worker = master.pool.workers.get(slot)
        if worker is None or worker.is_killed:
            alive = [one for one, other in master.pool.workers.items() if not other.is_killed]
            slots = ", ".join(map(str, sorted(alive)))
            raise ClientError(f"no worker in slot {slot}; slots with workers: {slots or 'none'}")
        master.pool.kill(slot, "was in a worker that an operator killed")
        return f"killing worker slot={slot} pid={worker.process.pid}"


def _add_bans(app: App, master: Master) -> None:
    bans = BanList(master.board)
    master.watch(bans)

    @app.handler
    def deny(network: str, seconds: float = 0.0) -> str:
        """Refuse the clients of a network for some seconds; without them, until ALLOW."""
        network = _network(network)
        if not 0 <= seconds <= MOST_SECONDS:
            raise ClientError(f"seconds must be 0 to {MOST_SECONDS:g}, not {seconds:g}")
        bans.add(network, seconds or math.inf)
        return f"denied {network}" + (f" for {seconds:g} s" if seconds else "")

    @app.handler
    def allow(network: str) -> str:
        """Serve the clients of a network again that was denied."""
        network = _network(network)
        bans.lift(network)
        return f"allowed {network}"


def _network(text: str) -> str:
    try:
        return parsed_networks([text])[0]
    except ValueError as error:
        raise ClientError(f"must be one of {error}") from None


def _add_reload(app: App, master: Master) -> None:
    @app.handler
    def reload(form: Literal["text", "json"] = "text") -> Future[object]:
        """Load configuration and code anew; the reply comes when the new workers serve, or it failed."""
        future: Future[object] = Future()

        def answer(outcome: Outcome) -> None:
            if form == "json":
                future.set_result(json.dumps(asdict(outcome)))
            elif outcome.failure:
                future.set_exception(ServerError(outcome.failure.partition("\n")[0]))
            else:
                future.set_result(str(outcome))

        master.reload.begin(answer)
        return future


def _add_upgrade(app: App, master: Master) -> None:
    @app.handler
    def upgrade(form: Literal["text", "json"] = "text") -> Future[object]:
        """Become the program that the same command starts now, and reload; the reply comes after that."""
        reply = UpgradeReply(form)
        master.upgrade.begin(reply.refuse)
        return reply


def _scaled(bounds: Workers, wanted: str) -> Workers:
    if wanted[:1] in ("+", "-") and is_whole(wanted[1:]):
        step = int(wanted)
        wanted = f"{bounds.min + step}:{bounds.max + step}"
    try:
        scaled: Workers = parse_setting("workers", wanted, "SCALE")
    except SetupError as error:
        raise ClientError(str(error)) from None
    if not scaled.max:
        raise ClientError(
            f"SCALE: workers must be N or MIN:MAX with 1 <= MIN <= MAX, not {wanted!r}; DRAIN empties a pool"
        )
    return scaled
