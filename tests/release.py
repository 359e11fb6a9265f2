"""Cut a release, then build and try what is published; nothing is uploaded.

``./dev release VERSION`` writes the version and the changelog, commits both, and builds and tries everything.
``--check`` does the last part only, for the commit of a tag: that is what the release workflow publishes.
"""

import argparse
import configparser
import datetime
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
VERSION_FILE = Path("linepool/version.py")
CHANGELOG = Path("CHANGELOG.md")
PINS = {".ci/build.txt": ("build",), ".ci/release.txt": ("build", "release")}
VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)(?:(a|b|rc)(\d+))?")
HEAD = re.compile(r"^## (.+)\n", re.MULTILINE)
PARTS = ("Added", "Changed", "Deprecated", "Removed", "Fixed", "Security")


class ReleaseError(Exception):
    """The tree cannot be released; the text says why, and what would be right."""


def main(words):
    """Obey the command line; return the exit status."""
    parser = argparse.ArgumentParser(prog="./dev release", description=__doc__.partition("\n")[0])
    chosen = parser.add_mutually_exclusive_group(required=True)
    chosen.add_argument("version", nargs="?", help="the version to cut, such as 1.2.0 or 1.2.0rc1")
    chosen.add_argument("--check", action="store_true", help="build and try the release of HEAD")
    chosen.add_argument("--notes", action="store_true", help="print what HEAD's release changes")
    chosen.add_argument("--pins", action="store_true", help="write .ci/*.txt anew")
    options = parser.parse_args(words)
    try:
        if options.pins:
            write_pins()
        elif options.notes:
            print(notes(ROOT))
        else:
            if options.version:
                cut(ROOT, options.version, datetime.datetime.now(datetime.UTC).date())
            check(ROOT)
            build_and_try(ROOT)
    except ReleaseError as error:
        print(f"release: {error}", file=sys.stderr)
        return 1
    return 0


def cut(root, version, today):
    """Write a version and its date where they belong, and commit that.

    Raises:
        ReleaseError: The version or the tree is not fit for it. Nothing has been changed.
    """
    text = (root / CHANGELOG).read_text(encoding="utf-8")
    _refuse_version(root, version)
    _refuse_tree(root)
    if not sections(text)["Unreleased"]:
        raise ReleaseError(f"{CHANGELOG} has nothing under Unreleased; say what changes for users")
    head = f"## Unreleased\n\n## {version} - {today}\n"
    (root / CHANGELOG).write_text(text.replace("## Unreleased\n", head, 1), encoding="utf-8")
    file = root / VERSION_FILE
    found = file.read_text(encoding="utf-8")
    file.write_text(found.replace(current(root), version), encoding="utf-8")
    git(root, "commit", "--quiet", "--message", f"Release {version}", VERSION_FILE, CHANGELOG)


def _refuse_version(root, version):
    if not VERSION.fullmatch(version):
        raise ReleaseError(f"{version!r} is not a version such as 1.2.0 or 1.2.0rc1")
    newest = max(map(order, released(root)), default=())
    if order(version) <= newest or order(version) < order(current(root)):
        raise ReleaseError(f"{version} must be later than {current(root)}")
    if git(root, "tag", "--list", f"v{version}"):
        raise ReleaseError(f"the tag v{version} exists already; choose a later version")


def _refuse_tree(root):
    changed = git(root, "status", "--porcelain")
    if changed:
        raise ReleaseError(f"commit or remove these changes first:\n{changed}")
    settings = configparser.ConfigParser(interpolation=None)
    settings.read(root / "setup.cfg", encoding="utf-8")
    if ".example/" in settings["metadata"]["project_urls"]:
        raise ReleaseError("project_urls in setup.cfg are placeholders; name the repository")


def check(root):
    """Check that HEAD is a release: the tree, the version and the changelog agree.

    Raises:
        ReleaseError: They do not.
    """
    _refuse_tree(root)
    version = current(root)
    if not released(root) or released(root)[0] != version:
        raise ReleaseError(f"the first version in {CHANGELOG} must be {version}; cut it first")
    if sections((root / CHANGELOG).read_text(encoding="utf-8"))["Unreleased"]:
        raise ReleaseError(f"{CHANGELOG} has changes under Unreleased, after those of {version}")
    tags = git(root, "tag", "--points-at", "HEAD").split()
    if tags and f"v{version}" not in tags:
        raise ReleaseError(
            f"HEAD has the tag {tags[0]}; the tag of version {version} is v{version}"
        )


def build_and_try(root):
    """Build and try all that is published; say what comes next."""
    from tests import wheels

    wheels.main([])
    print(f"next: git tag --sign v{current(root)} && git push origin HEAD v{current(root)}")


def write_pins():
    """Resolve the tools that build and check a release; write their versions and hashes."""
    for name, extras in PINS.items():
        wanted = "\n".join(requirement for extra in extras for requirement in extra_of(extra))
        command = ["-m", "uv", "pip", "compile", "--quiet", "--universal", "--python-version=3.11"]
        shown = [
            "--generate-hashes",
            "--no-annotate",
            "--custom-compile-command=./dev release --pins",
        ]
        own = ["attrs", "cattrs"] if "release" in extras else []
        subprocess.run(
            [sys.executable, *command, *shown, "--upgrade", "-", "-o", str(ROOT / name)],
            input="\n".join([wanted, *own]),
            text=True,
            check=True,
        )


def extra_of(name):
    """Return the requirements of an extra in setup.cfg."""
    settings = configparser.ConfigParser(interpolation=None)
    settings.read(ROOT / "setup.cfg", encoding="utf-8")
    return settings["options.extras_require"][name].split("\n")[1:]


def notes(root):
    """Return what the changelog says of the current version."""
    found = sections((root / CHANGELOG).read_text(encoding="utf-8"))
    heads = [head for head in found if head.partition(" ")[0] == current(root)]
    if not heads:
        raise ReleaseError(f"{CHANGELOG} has no section for {current(root)}")
    return found[heads[0]]


def sections(changelog):
    """Return the text below each head of the second level, without white space around it."""
    _, *rest = HEAD.split(changelog)
    return {head: body.strip() for head, body in zip(rest[::2], rest[1::2], strict=True)}


def released(root):
    """Return the versions in the changelog, the first one first."""
    heads = list(sections((root / CHANGELOG).read_text(encoding="utf-8")))
    if heads[:1] != ["Unreleased"]:
        raise ReleaseError(f"{CHANGELOG} must begin with the section Unreleased")
    return [head.partition(" ")[0] for head in heads[1:]]


def current(root):
    """Return the version in linepool/version.py."""
    found = re.search('__version__ = "(.+)"', (root / VERSION_FILE).read_text(encoding="utf-8"))
    if found is None:
        raise ReleaseError(f"{VERSION_FILE} must have a line: __version__ = ...")
    return found[1]


def order(version):
    """Return what sorts versions: 1.2.0a1, 1.2.0b1, 1.2.0rc1, 1.2.0."""
    found = VERSION.fullmatch(version)
    if found is None:
        raise ReleaseError(f"{version!r} is not a version such as 1.2.0 or 1.2.0rc1")
    *numbers, stage, count = found.groups()
    return (*map(int, numbers), stage or "z", int(count or 0))


def git(root, *words):
    """Run git; return what it writes."""
    command = ["git", *map(str, words)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ReleaseError(f"git {words[0]}: {done.stderr.strip()}")
    return done.stdout.strip()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
