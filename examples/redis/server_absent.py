"""Commands of what there is not: functions, modules, a cluster, replicas. They reply as Redis without it."""

from __future__ import annotations

from typing import Any

from application import app

from linepool import ClientError, Verb
from linepool.protocols.resp import OK, Status

_NO_CLUSTER = "This instance has cluster support disabled"
_CLUSTER = (
    *("INFO", "SLOTS", "SHARDS", "NODES", "KEYSLOT", "MYID", "MEET", "RESET", "COUNTKEYSINSLOT"),
    *("GETKEYSINSLOT", "ADDSLOTS", "DELSLOTS", "LINKS", "REPLICAS", "FORGET", "FAILOVER"),
)


@app.handler("READONLY", "READWRITE", "ASKING")
def refuse_mode() -> None:
    """Refuse, for this is not a node of a cluster."""
    raise ClientError(_NO_CLUSTER)


@app.handler(*(f"CLUSTER|{name}" for name in _CLUSTER))
def refuse_cluster(*words: bytes) -> None:
    """Refuse, for this is not a node of a cluster."""
    raise ClientError(_NO_CLUSTER)


@app.handler("REPLICAOF", "SLAVEOF")
def replicate(host: str, port: str) -> Status:
    """Accept NO ONE; there is no replication."""
    if (host.upper(), port.upper()) != ("NO", "ONE"):
        raise ClientError("replication is not served")
    return OK


@app.handler
def failover(*words: bytes) -> None:
    """Refuse, for there are no replicas."""
    raise ClientError("FAILOVER requires connected replicas.")


@app.handler("MODULE|LIST")
def list_modules() -> list[object]:
    """List the modules; there are none."""
    return []


@app.handler("MODULE|LOAD", "MODULE|LOADEX")
def load_module(path: str, *words: bytes) -> None:
    """Refuse, for modules are written for Redis itself."""
    raise ClientError("Error loading the extension. Please check the server logs.")


@app.handler("MODULE|UNLOAD")
def unload_module(name: str) -> None:
    """Refuse, for there are no modules."""
    raise ClientError("Error unloading module: no such module with that name")


@app.handler("FUNCTION|LIST")
def list_functions(*words: bytes) -> list[object]:
    """List the libraries; there are none."""
    return []


@app.handler("FUNCTION|STATS")
def function_facts() -> dict[str, Any]:
    """Say that no function runs, and that there are no libraries."""
    engine = {"libraries_count": 0, "functions_count": 0}
    return {"running_script": None, "engines": {"LUA": engine}}


@app.handler("FUNCTION|FLUSH")
def flush_functions(mode: str = "SYNC") -> Status:
    """Delete all libraries; there are none."""
    if mode.upper() not in ("SYNC", "ASYNC"):
        raise ClientError("FUNCTION FLUSH only supports SYNC|ASYNC option")
    return OK


@app.handler("FUNCTION|DELETE")
def delete_function(library: str) -> None:
    """Refuse, for there are no libraries."""
    raise ClientError("Library not found")


@app.handler("FUNCTION|KILL")
def kill_function() -> None:
    """Refuse, for no function runs."""
    raise ClientError("No scripts in execution right now.", code="NOTBUSY")


@app.handler("FUNCTION|LOAD", "FUNCTION|RESTORE", "FUNCTION|DUMP")
def refuse_function(verb: Verb, *words: bytes) -> None:
    """Refuse, for there are no libraries; EVAL runs scripts."""
    raise ClientError("functions are not served; EVAL and SCRIPT LOAD are")


@app.handler("FCALL", "FCALL_RO")
def call_function(function: bytes, numkeys: int, *words: bytes) -> None:
    """Refuse, for there are no functions."""
    raise ClientError("Function not found")
