"""A calculator with JSON-RPC 2.0; see README.md in this folder."""

import ast
import math
import operator
from collections.abc import Callable

import linepool

app = linepool.App("calculator", protocol=linepool.JsonRpc(title="calculator"))

DIVISION_BY_ZERO = -32010
NOT_A_NUMBER = -32011
_MAX_EXPRESSION_CHARS = 1000
_MAX_VALUE = 10**1000
_OPERATORS: dict[type, Callable[..., float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Mod: operator.mod,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}


def checked(calculate: Callable[[], float]) -> float:
    """Return the result of a calculation; raise ClientError if it has none."""
    try:
        value = calculate()
        if type(value) is float and not math.isfinite(value):
            raise linepool.ClientError("the result is not a number", code=NOT_A_NUMBER)
    except ZeroDivisionError:
        raise linepool.ClientError("division by zero", code=DIVISION_BY_ZERO) from None
    except (OverflowError, ValueError):
        raise linepool.ClientError("the result is not a number", code=NOT_A_NUMBER) from None
    return value


@app.handler
def add(a: int | float, b: int | float) -> int | float:
    """Add two numbers."""
    return checked(lambda: a + b)


@app.handler
def subtract(minuend: int | float, subtrahend: int | float) -> int | float:
    """Subtract one number from another."""
    return checked(lambda: minuend - subtrahend)


@app.handler
def multiply(a: int | float, b: int | float) -> int | float:
    """Multiply two numbers."""
    return checked(lambda: a * b)


@app.handler
def divide(dividend: int | float, divisor: int | float) -> float:
    """Divide one number by another."""
    return checked(lambda: dividend / divisor)


@app.handler
def sqrt(number: float) -> float:
    """Return the square root."""
    return checked(lambda: math.sqrt(number))


@app.handler("sum")
def total(*numbers: int | float) -> int | float:
    """Add any number of numbers."""
    return checked(lambda: sum(numbers))


@app.handler
def mean(*numbers: int | float) -> float:
    """Return the mean of numbers."""
    return checked(lambda: sum(numbers) / len(numbers))


@app.handler
def evaluate(expression: str) -> int | float:
    """Evaluate an expression of numbers, + - * / % and parentheses."""
    if len(expression) > _MAX_EXPRESSION_CHARS:
        raise linepool.ClientError(f"an expression has at most {_MAX_EXPRESSION_CHARS} characters")
    try:
        tree = ast.parse(expression.strip(), mode="eval")
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise linepool.ClientError(f"{expression!r} is not an expression") from None
    return checked(lambda: value_of(tree.body))


def value_of(node: ast.expr) -> int | float:
    """Return the value of a part of an expression."""
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return node.value  # type: ignore[return-value]
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        value = _OPERATORS[type(node.op)](value_of(node.left), value_of(node.right))
    elif isinstance(node, ast.UnaryOp) and type(node.op) in _OPERATORS:
        value = _OPERATORS[type(node.op)](value_of(node.operand))
    else:
        raise linepool.ClientError(
            "an expression may contain only numbers, + - * / % and parentheses"
        )
    if abs(value) > _MAX_VALUE:
        raise OverflowError
    return value


@app.handler
def store(number: float, session: linepool.Session) -> float:
    """Store a number for this connection."""
    session["memory"] = number
    return number


@app.handler
def recall(session: linepool.Session) -> float:
    """Return the stored number; 0 if none is stored."""
    return float(session.get("memory", 0.0))


if __name__ == "__main__":
    linepool.run(app)
