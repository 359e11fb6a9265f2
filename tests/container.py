"""Build the image of examples/container and try it in a container: ``./dev container``.

Needs docker or podman, and what they download: a base image, packages of its distribution, and of PyPI. The
container has a read-only root file system and no capabilities. Where the defaults do not do, the options say
how, for example with a base image of one's own and without the network of containers:

    ./dev container --engine "podman --runtime runc" --build "buildah bud --isolation chroot --network host"
        --base localhost/debian --packages "gcc libc6-dev python3-dev"
        --run-options "--ulimit nofile=4096:4096"
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Sequence

from tests.servers import ROOT

_IMAGE = "localhost/linepool-test"
_MEMORY = 256 * 1024 * 1024
_LIMIT = 60.0  # seconds


class ImageError(Exception):
    """The image is not what it should be; the text says why."""


def run(command: Sequence[str]) -> str:
    """Run a command; return its output without the last line ending.

    Raises:
        ImageError: Its exit status is not 0.
    """
    print("$", shlex.join(command), flush=True)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise ImageError(f"exit status {done.returncode}")
    return done.stdout.removesuffix("\n")


def expect(what: str, found: object, expected: object) -> None:
    """Compare a value.

    Raises:
        ImageError: It is another one.
    """
    if found != expected:
        raise ImageError(f"{what}: {found!r} instead of {expected!r}")
    print(f"  {what}: {found}", flush=True)


def build(options: argparse.Namespace) -> None:
    """Build the image."""
    command = shlex.split(options.build or f"{options.engine} build")
    if options.base:
        command += ["--build-arg", f"PYTHON={options.base}"]
    if options.packages:
        command += ["--build-arg", f"BUILD_PACKAGES={options.packages}"]
    file = str(ROOT / "examples" / "container" / "Dockerfile")
    subprocess.run([*command, "--tag", _IMAGE, "--file", file, str(ROOT)], check=True)


def try_out(options: argparse.Namespace) -> None:
    """Run the image in a container, and look at it from inside and outside.

    Raises:
        ImageError: Something is not as it should be.
    """
    engine = shlex.split(options.engine)
    port = _free_port()
    confined = "--read-only --tmpfs /tmp:size=16m --cap-drop ALL --security-opt no-new-privileges"
    name = run(
        [
            *(*engine, "run", "--detach", "--network", "host", "--memory", str(_MEMORY)),
            *("--env", f"LINEPOOL_BIND=127.0.0.1:{port}", *shlex.split(confined)),
            *(*shlex.split(options.run_options), _IMAGE),
        ]
    )
    try:
        _until_healthy(engine, name)
        _look(engine, name, port)
        run([*engine, "stop", "--time", "30", name])
        state = json.loads(run([*engine, "inspect", "--format", "{{json .State}}", name]))
        expect("exit status after a stop", state["ExitCode"], 0)
    finally:
        subprocess.run([*engine, "logs", name], check=False)
        subprocess.run([*engine, "rm", "--force", name], stdout=subprocess.DEVNULL, check=False)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


def _until_healthy(engine: list[str], name: str) -> None:
    give_up_at = time.monotonic() + _LIMIT
    check = [*engine, "exec", name, "linepool", "health"]
    while subprocess.run(check, capture_output=True, check=False).returncode:
        if time.monotonic() > give_up_at:
            raise ImageError("it does not become healthy")
        time.sleep(0.2)


def _look(engine: list[str], name: str, port: int) -> None:
    inside = [*engine, "exec", name]
    state = json.loads(run([*inside, "linepool", "status", "--json"]))
    expect("pid of the master", state["pid"], 1)
    expect("core", state["core"], "compiled")
    expect("memory limit", state["limits"]["memory_bytes"], _MEMORY)
    expect("user", run([*inside, "id", "-u"]), "10001")
    writing = [*inside, "sh", "-c", "touch /app/x 2>/dev/null || echo refused"]
    expect("writing to the root file system", run(writing), "refused")
    _expect_sum(port)
    run([*inside, "linepool", "reload"])
    _expect_sum(port)
    state = json.loads(run([*inside, "linepool", "status", "--json"]))
    expect("generation", state["generation"], 2)


def _expect_sum(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), _LIMIT) as sock, sock.makefile() as file:
        sock.sendall(b"ADD 2 3\n")
        expect("2 + 3", file.readline().strip(), "5")


def main() -> int:
    """Build and try the image; return the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    engine = next(filter(shutil.which, ("docker", "podman")), "docker")
    parser.add_argument("--engine", default=engine, help="default: %(default)s")
    parser.add_argument("--build", metavar="COMMAND", help="default: ENGINE build")
    parser.add_argument("--base", metavar="IMAGE", help="default: that of the Dockerfile")
    parser.add_argument(
        "--packages", help="to install for the build; default: those of the Dockerfile"
    )
    parser.add_argument("--run-options", default="", help="further options of ENGINE run")
    options = parser.parse_args()
    try:
        build(options)
        try_out(options)
    except (ImageError, OSError, subprocess.CalledProcessError) as error:
        print(f"container: {error}", file=sys.stderr)
        return 1
    print("the image works")
    return 0


if __name__ == "__main__":
    os.chdir(ROOT)
    sys.exit(main())
