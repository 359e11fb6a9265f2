from linepool.core.syntax import Syntax
from linepool.service import Service

class RespSyntax(Syntax):
    def __init__(self, service: Service) -> None: ...
