"""A long command that says how far it is: the checksums of all files of a directory.

    linepool run examples/services/checksums.py --bind 127.0.0.1:7000

SUMS DIRECTORY answers with a line for each file when it is read, so a client sees progress, and the worker
serves others meanwhile. If the client leaves, the work ends. ROOT is what may be read, by default the
working directory.
"""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import linepool

app = linepool.App("checksums")
ROOT = Path(os.environ.get("ROOT", ".")).resolve()
CHUNK_BYTES = 1024 * 1024


def files_in(directory: str) -> list[Path]:
    place = (ROOT / directory).resolve()
    if not place.is_relative_to(ROOT) or not place.is_dir():
        raise linepool.ClientError(f"{directory} is not a directory here")
    return sorted(file for file in place.rglob("*") if file.is_file())


@app.handler(timeout=0)  # however large the files are: no limit
def sums(directory: str) -> Iterator[str]:
    """Show how far it is, and the checksum of each file; at last one of all of them."""
    files = files_in(directory)
    total = sum(file.stat().st_size for file in files)
    all_files, done = hashlib.sha256(), 0
    yield f"0 % of {total} bytes in {len(files)} files"
    for file in files:
        digest = hashlib.sha256()
        with file.open("rb") as stream:
            while chunk := stream.read(CHUNK_BYTES):
                digest.update(chunk)
                done += len(chunk)
                if len(chunk) == CHUNK_BYTES:
                    yield f"{100 * done // total} % {file.name}"
        all_files.update(digest.digest())
        yield f"{100 * done // max(total, 1)} % {file.name} {digest.hexdigest()[:16]}"
    yield f"done {all_files.hexdigest()[:16]}"


if __name__ == "__main__":
    linepool.run(app)
