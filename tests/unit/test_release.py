"""What a release is made of agrees: version, changelog, metadata, pins and workflows. Cutting one works."""

import configparser
import datetime
import importlib.metadata
import re
import subprocess
import sys
from itertools import pairwise

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

import linepool
from tests import release
from tests.published import supported
from tests.servers import ROOT

CHANGES = release.sections((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))
WORKFLOWS = [ROOT / f".github/workflows/{name}.yml" for name in ("ci", "release")]
FORMS = [ROOT / f".github/ISSUE_TEMPLATE/{name}.yml" for name in ("bug", "wish")]
DAY = datetime.date(2026, 2, 1)
SETTINGS = configparser.ConfigParser(interpolation=None)
SETTINGS.read(ROOT / "setup.cfg", encoding="utf-8")


def test_the_changelog_has_versions_with_dates_the_newest_first():
    heads = list(CHANGES)
    assert heads[0] == "Unreleased"
    found = [re.fullmatch(r"(\S+) - (\d{4}-\d\d-\d\d)", head) for head in heads[1:]]
    assert all(found), heads
    versions = [Version(match[1]) for match in found if match]
    assert all(newer > older for newer, older in pairwise(versions))


@pytest.mark.parametrize("head", CHANGES)
def test_the_parts_of_a_version_are_those_of_keep_a_changelog(head):
    parts = re.findall(r"^### (.+)$", CHANGES[head], re.MULTILINE)
    assert parts == [part for part in release.PARTS if part in parts], (
        f"each once, in this order: {parts}"
    )


def test_the_version_is_that_of_the_newest_release_or_the_first_to_come():
    assert release.current(ROOT) == linepool.__version__
    assert release.released(ROOT)[:1] in ([linepool.__version__], [])


def test_the_metadata_are_complete():
    found = importlib.metadata.metadata("linepool")
    for key in (
        "Name",
        "Version",
        "Summary",
        "Author",
        "License-Expression",
        "Keywords",
        "Requires-Python",
    ):
        assert found[key], key
    urls = dict(line.split(", ") for line in found.get_all("Project-URL") or ())
    assert set(urls) == {"Source", "Documentation", "Changelog", "Issues", "Security"}
    assert all(url.startswith(urls["Source"]) for url in urls.values())


def test_the_pythons_are_the_same_everywhere():
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    ci = WORKFLOWS[0].read_text(encoding="utf-8")
    built = re.search(r'^build = "(.*)"$', pyproject, re.MULTILINE)
    tested = re.search(r"^ +python: \[(.*)\]$", ci, re.MULTILINE)
    assert built is not None
    assert tested is not None
    assert built[1].split() == [f"cp{version.replace('.', '')}-*" for version in supported()]
    assert tested[1] == ", ".join(f'"{version}"' for version in supported())
    assert SETTINGS["options"]["python_requires"] == f">={supported()[0]}"


@pytest.mark.parametrize("name", release.PINS)
def test_the_pins_have_hashes_and_are_what_setup_cfg_asks_for(name):
    text = (ROOT / name).read_text(encoding="utf-8").replace("\\\n", "")
    lines = [line for line in text.splitlines() if line and line[0] != "#"]
    pinned = {}
    for line in lines:
        requirement, *hashes = line.split(" --hash=sha256:")
        package, _, version = requirement.partition(" ;")[0].strip().partition("==")
        pinned[package] = version
        assert hashes, line
    for extra in release.PINS[name]:
        for wanted in map(Requirement, release.extra_of(extra)):
            version = pinned[wanted.name.lower()]
            assert wanted.specifier.contains(version), (
                f"{wanted}: write anew with ./dev release --pins"
            )


def test_an_index_shows_the_readme_with_links_to_the_files_of_this_version():
    command = [sys.executable, "setup.py", "--quiet", "--long-description"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    targets = re.findall(r"\]\(([^)]+)\)", shown)
    source = re.search(r"Source = (\S+)", SETTINGS["metadata"]["project_urls"])
    assert source is not None
    inside = [target.removeprefix(source[1]) for target in targets if target.startswith(source[1])]
    assert all(target.startswith("https://") for target in targets)
    assert len(inside) > 20
    for target in inside:
        found = re.fullmatch(rf"/(blob|raw)/v{linepool.__version__}/([^#]+).*", target)
        assert found is not None, target
        kind, path = found.groups()
        assert (ROOT / path).exists()
        assert (kind == "raw") == path.endswith((".svg", ".png"))


@pytest.mark.parametrize(
    ("schema", "files"),
    [
        ("github-workflows", WORKFLOWS),
        ("github-issue-forms", FORMS),
        ("github-issue-config", [ROOT / ".github/ISSUE_TEMPLATE/config.yml"]),
        ("dependabot", [ROOT / ".github/dependabot.yml"]),
    ],
)
def test_what_the_forge_reads_fits_its_schema(schema, files):
    command = [
        sys.executable,
        "-m",
        "check_jsonschema",
        "--builtin-schema",
        f"vendor.{schema}",
        *files,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_every_action_is_pinned_to_a_commit():
    used = [
        word for path in WORKFLOWS for word in re.findall(r"uses: (.+)", path.read_text("utf-8"))
    ]
    others = [word for word in used if not word.startswith("./")]
    assert len(others) >= 8
    assert all(re.fullmatch(r"[\w/-]+@[0-9a-f]{40} # v[\d.]+", word) for word in others), others


@pytest.fixture
def tree(tmp_path):
    """A repository with the files that a release changes, and something to release."""
    for name in ("setup.cfg", "linepool/version.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        text = (ROOT / name).read_text(encoding="utf-8").replace("git.example", "git.test")
        (tmp_path / name).write_text(re.sub("__version__ = .*", '__version__ = "1.1.0"', text))
    changes = "# Changelog\n\n## Unreleased\n\n### Fixed\n\n- A fault.\n\n## 1.1.0 - 2026-01-01\n\n- News.\n"
    (tmp_path / "CHANGELOG.md").write_text(changes)
    release.git(tmp_path, "init", "--quiet")
    for key, value in (("user.name", "A"), ("user.email", "a@b.test"), ("commit.gpgsign", "false")):
        release.git(tmp_path, "config", key, value)
    commit(tmp_path)
    return tmp_path


def commit(tree):
    release.git(tree, "add", "--all")
    release.git(tree, "commit", "--quiet", "--message", "A change")


def test_a_release_is_cut(tree):
    release.cut(tree, "1.2.0", DAY)

    assert release.current(tree) == "1.2.0"
    assert release.notes(tree) == "### Fixed\n\n- A fault."
    heads = list(release.sections((tree / "CHANGELOG.md").read_text()))
    assert heads == ["Unreleased", "1.2.0 - 2026-02-01", "1.1.0 - 2026-01-01"]
    assert release.git(tree, "log", "-1", "--format=%s") == "Release 1.2.0"
    release.check(tree)
    release.git(tree, "tag", "v1.2.0")
    release.check(tree)


def test_the_first_release_is_cut(tree):
    (tree / "CHANGELOG.md").write_text("# Changelog\n\n## Unreleased\n\n- News.\n")
    commit(tree)
    release.cut(tree, "1.1.0", DAY)
    release.check(tree)


@pytest.mark.parametrize(
    ("version", "message"),
    [
        ("1.2", "'1.2' is not a version"),
        ("v1.2.0", "'v1.2.0' is not a version"),
        ("1.1.0", "1.1.0 must be later than 1.1.0"),
        ("1.1.0rc1", "1.1.0rc1 must be later"),
        ("0.9.0", "0.9.0 must be later"),
        ("2.0.0", "the tag v2.0.0 exists already"),
    ],
)
def test_a_version_is_refused(tree, version, message):
    release.git(tree, "tag", "v2.0.0")
    with pytest.raises(release.ReleaseError, match=re.escape(message)):
        release.cut(tree, version, DAY)
    assert release.current(tree) == "1.1.0"


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("setup.cfg", "git.test", "git.example", "placeholders"),
        ("CHANGELOG.md", "### Fixed\n\n- A fault.\n", "", "nothing under Unreleased"),
        ("CHANGELOG.md", "## Unreleased\n", "", "must begin with the section Unreleased"),
    ],
)
def test_a_tree_is_refused(tree, file, old, new, message):
    path = tree / file
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(release.ReleaseError, match=r"commit or remove|must begin"):
        release.cut(tree, "1.2.0", DAY)
    commit(tree)
    with pytest.raises(release.ReleaseError, match=message):
        release.cut(tree, "1.2.0", DAY)


def test_a_commit_that_is_not_a_release_is_not_published(tree):
    with pytest.raises(release.ReleaseError, match="changes under Unreleased"):
        release.check(tree)
    release.cut(tree, "1.2.0", DAY)
    release.git(tree, "tag", "v1.3.0")
    with pytest.raises(release.ReleaseError, match=r"has the tag v1\.3\.0"):
        release.check(tree)
