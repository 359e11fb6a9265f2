"""A server of grpcio that adds two numbers, for the benchmark of clients: prints its port."""

from __future__ import annotations

import json
from concurrent import futures
from typing import Any

import grpc


def add(request: bytes, _context: Any) -> bytes:
    a, b = json.loads(request)
    return json.dumps(a + b).encode()


if __name__ == "__main__":
    server = grpc.server(futures.ThreadPoolExecutor(16))
    method = grpc.unary_unary_rpc_method_handler(add)
    handlers = grpc.method_handlers_generic_handler("sums", {"add": method})
    server.add_generic_rpc_handlers((handlers,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(f"listening on 127.0.0.1:{port}", flush=True)
    server.wait_for_termination()
