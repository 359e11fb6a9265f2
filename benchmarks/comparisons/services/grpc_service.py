"""The service on grpcio, with JSON instead of Protocol Buffers: grpc_service.py PORT."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Callable
from concurrent import futures
from typing import Any

import grpc
import work

VERSION = 1
METHODS: dict[str, Callable[..., Any]] = {
    "COLLATZ": lambda n: work.collatz(int(n)),
    "SLEEP": lambda seconds: time.sleep(float(seconds)),
    "CRASH": work.crash,
    "VERSION": lambda: VERSION,
}


def method(function: Callable[..., Any]) -> grpc.RpcMethodHandler:
    """Return what serves a function: JSON in, JSON out."""

    def respond(request: bytes, context: grpc.ServicerContext) -> bytes:
        try:
            return json.dumps(function(*json.loads(request))).encode()
        except (TypeError, ValueError) as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            raise AssertionError("abort() raises") from error

    return grpc.unary_unary_rpc_method_handler(respond)


def main() -> None:
    server = grpc.server(futures.ThreadPoolExecutor(16))
    methods = {name: method(function) for name, function in METHODS.items()}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("Service", methods),))
    server.add_insecure_port(f"127.0.0.1:{sys.argv[1]}")
    server.start()
    signal.signal(signal.SIGTERM, lambda *_: server.stop(grace=5))
    server.wait_for_termination()


if __name__ == "__main__":
    main()
