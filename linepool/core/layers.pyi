from typing import Any

from linepool.protocols.base import Request

class Chain: ...

class Layer:
    conversation: Any
    def __call__(self, request: Request) -> Any: ...
