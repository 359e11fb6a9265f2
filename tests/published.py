"""What is published, as files: built twice with the same bytes, complete, and as indexes ask for.

The source distribution has what git has. The pure wheel is built from it with the pinned tools of
``.ci/release.txt``. The SBOM beside them lists what an installation of the wheel brings along. ``dist/`` then
has all of them; ``tests/wheels.py`` tries them.
"""

import configparser
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from email.parser import HeaderParser
from pathlib import Path

from linepool.core import VARIABLE

ROOT = Path(__file__).parents[1]
DIST = ROOT / "dist"
ADDED = ("PKG-INFO", "setup.cfg", "linepool.egg-info/")  # setuptools writes these


def build():
    """Build and check all; return the paths of the source distribution and of the pure wheel."""
    shutil.rmtree(DIST, ignore_errors=True)
    DIST.mkdir()
    with tempfile.TemporaryDirectory(prefix="linepool-built-") as name:
        one, two = (_built(Path(name) / word) for word in ("one", "two"))
        assert [path.name for path in one] == [path.name for path in two]
        for first, second in zip(one, two, strict=True):
            assert first.read_bytes() == second.read_bytes(), f"{first.name} is not reproducible"
        source, pure = (Path(shutil.copy(path, DIST)) for path in one)
        _check_source(source)
        _check_pure(pure)
        _check_as_indexes_do(source, pure)
        _check_identifiers()
        bill = _bill_of_materials(pure, Path(name) / "installed")
    for path in (source, pure, bill):
        print(f"{path.name}: {path.stat().st_size:,} bytes", flush=True)
    return source, pure


def _built(place):
    """Build in a copy of the tree, which has other times and another path each time."""
    tree = place / "tree"
    for name in _tracked():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tree / name)
    when = _run("git", "log", "-1", "--format=%ct", cwd=ROOT).strip()
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", place / "dist", tree]
    _run(*build, **{VARIABLE: "1", "SOURCE_DATE_EPOCH": when})
    (source,) = place.glob("dist/*.tar.gz")
    (pure,) = place.glob("dist/*.whl")
    return source, pure


def _tracked():
    """Return the names of the files that git has, or would add."""
    names = _run("git", "ls-files", "-co", "--exclude-standard", cwd=ROOT).splitlines()
    return {name for name in names if (ROOT / name).exists()}


def _check_source(source):
    with tarfile.open(source) as archive:
        members = archive.getmembers()
    assert {(member.uid, member.gid, member.uname) for member in members} == {(0, 0, "")}
    names = {member.name.partition("/")[2] for member in members if member.isfile()}
    other = {name for name in names ^ _tracked() if not name.startswith(ADDED)}
    assert not other, f"only in git, or only in {source.name}: {other}"


def _check_pure(pure):
    assert pure.name.endswith("-py3-none-any.whl"), pure
    with zipfile.ZipFile(pure) as archive:
        names = archive.namelist()
        (described,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        text = archive.read(described).decode()
    modules = {name for name in names if name.startswith("linepool/")}
    info = described.partition("/")[0]
    assert all(name.startswith(("linepool/", f"{info}/")) for name in names), names
    assert modules == {name for name in _tracked() if _is_in_wheel(name)}
    _check_links(HeaderParser().parsestr(text))


def _is_in_wheel(name):
    return name.startswith("linepool/") and not name.endswith((".pyx", ".pxd"))


def _check_links(described):
    """Render the description as an index does: each link is absolute, and names a file of the tree."""
    from readme_renderer.markdown import render

    html = render(described.get_payload())
    assert html is not None
    links = re.findall(r'(?:href|src)="([^"]+)"', html)
    source = dict(line.split(", ") for line in described.get_all("Project-URL"))["Source"]
    assert len(links) > 20
    for link in links:
        assert link.startswith(("https://", "#user-content-")), link
        inside = re.fullmatch(rf"{source}/(?:blob|raw)/v{described['Version']}/([^#]+).*", link)
        assert inside is None or (ROOT / inside[1]).exists(), link


def _check_as_indexes_do(source, pure):
    _run(sys.executable, "-m", "twine", "check", "--strict", source, pure)
    _run(sys.executable, "-m", "check_wheel_contents", pure)


def _check_identifiers():
    """Check that cibuildwheel builds for each Python of the classifiers, with and without glibc."""
    options = ["--platform", "linux", "--print-build-identifiers"]
    built = _run(sys.executable, "-m", "cibuildwheel", *options, cwd=ROOT).split()
    pythons = [f"cp{version.replace('.', '')}" for version in supported()]
    systems = ("manylinux_x86_64", "musllinux_x86_64", "manylinux_aarch64", "musllinux_aarch64")
    assert set(built) == {f"{python}-{system}" for python in pythons for system in systems}, built


def supported():
    """Return the versions of Python that the classifiers name."""
    settings = configparser.ConfigParser(interpolation=None)
    settings.read(ROOT / "setup.cfg", encoding="utf-8")
    return re.findall(r":: Python :: (3\.\d+)$", settings["metadata"]["classifiers"], re.MULTILINE)


def _bill_of_materials(pure, place):
    """Write the CycloneDX SBOM of the wheel and what it brings along; return its path."""
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    _run(sys.executable, "-m", "venv", "--without-pip", place)
    python = place / "bin/python"
    _run(sys.executable, "-m", "pip", "--quiet", "--python", python, "install", pure)
    words = ["environment", "--output-reproducible", "--short-PURLs", "--no-validate", python]
    bill = json.loads(_run(sys.executable, "-m", "cyclonedx_py", *words))
    (itself,) = (part for part in bill["components"] if part["name"] == "linepool")
    bill["components"].remove(itself)
    references = itself.get("externalReferences", [])  # one of them is the file installed here
    itself["externalReferences"] = [one for one in references if one["url"].startswith("https:")]
    digest = hashlib.sha256(pure.read_bytes()).hexdigest()
    itself["hashes"] = [{"alg": "SHA-256", "content": digest}]
    bill["metadata"]["component"] = itself
    assert {"attrs", "cattrs"} <= {part["name"] for part in bill["components"]}
    assert itself["version"] == pure.name.split("-")[1]
    text = json.dumps(bill, indent=2) + "\n"
    wrong = JsonStrictValidator(SchemaVersion.from_version(bill["specVersion"])).validate_str(text)
    assert wrong is None, wrong
    path = DIST / f"linepool-{itself['version']}.cdx.json"
    path.write_text(text, encoding="utf-8")
    return path


def _run(*words, cwd=None, **environment):
    """Run a program; return what it writes. It must succeed, and files that it makes are for all to read."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("LINEPOOL_")}
    done = subprocess.run(
        list(map(str, words)),
        cwd=cwd or tempfile.gettempdir(),
        env=clean | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if "build" in words else None,
        text=True,
        check=False,
        umask=0o022,
    )
    if done.returncode:
        sys.exit(f"{done.stdout}\n{words} failed with exit status {done.returncode}")
    return done.stdout


if __name__ == "__main__":
    build()
