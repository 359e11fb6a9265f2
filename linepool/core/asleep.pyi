from collections.abc import Iterable
from typing import NoReturn

def sleep(
    ranges: Iterable[tuple[int, int]], number: int, parent: int, patience: int
) -> NoReturn: ...
