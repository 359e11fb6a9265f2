from linepool.core.syntax import Syntax

class LineSyntax(Syntax):
    def __init__(self, max_line: int) -> None: ...
