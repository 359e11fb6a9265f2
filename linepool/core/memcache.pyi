from linepool.core.syntax import Syntax

class MemcacheSyntax(Syntax):
    def __init__(self, max_body: int) -> None: ...
