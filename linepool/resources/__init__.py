"""Resources: what an app opens for its handlers and hooks, and closes when its scope ends.

A resource may take others by annotation; they are opened before it and closed after it.

- ``functions``: what an app registers, and what it replaces in tests
- ``shapes``: the ways to write a resource, each turned into a generator function
- ``graph``: which resource takes which, checked when the app is frozen
- ``opened``: resources that are open, in their order
- ``held``: those of a worker, with their checks; it opens those of the other scopes too
- ``waking``: the resource that wakes requests that wait
- ``of_request``: those of a request, to the end of its reply
"""

from __future__ import annotations

from linepool.resources.functions import ResourceFunctions as ResourceFunctions
from linepool.resources.graph import WORKER as WORKER
from linepool.resources.held import Resources as Resources
from linepool.resources.of_request import in_request_scope as in_request_scope
from linepool.resources.of_request import is_of_request as is_of_request
