from tests.clients.jobs.attempts import tried


def add(x: int, y: int) -> int:
    return x + y


def fail_twice(name: str) -> str:
    number = tried(name)
    if number < 3:
        raise ValueError(f"attempt {number}")
    return f"done at attempt {number}"


def fail() -> None:
    raise ValueError("it always fails")
