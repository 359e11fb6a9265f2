from typing import Any

from linepool.protocols.base import Request

class Chain: ...

class Layer:
    def __call__(self, request: Request) -> Any: ...
