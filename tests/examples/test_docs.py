"""What the documents show is what happens."""

import datetime
import decimal
import enum
import itertools
import re
import signal
import subprocess
import sys
import typing

import pytest

import linepool
from linepool.app import App
from linepool.cli import main
from linepool.master import obeying
from linepool.operate.command_list import COMMANDS
from linepool.protocols.dialogue.replies import CODED_ERRORS, ENHANCED_ERRORS
from linepool.testing import Peer
from tests.examples import settings_page
from tests.servers import ENVIRONMENT, ROOT, run_server

PAGES = [
    *(ROOT / f"{name}.md" for name in ("README", "CHANGELOG", "CONTRIBUTING")),
    *(ROOT / f"{name}.md" for name in ("SECURITY", "CODE_OF_CONDUCT")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
README = PAGES[0].read_text(encoding="utf-8")
COMMANDS_PAGE = (ROOT / "docs/commands.md").read_text(encoding="utf-8")
PROTOCOLS = (ROOT / "docs/protocols.md").read_text(encoding="utf-8")
HANDLERS = (ROOT / "docs/handlers.md").read_text(encoding="utf-8")
RESOURCES = (ROOT / "docs/resources.md").read_text(encoding="utf-8")
TESTING = (ROOT / "docs/testing.md").read_text(encoding="utf-8")
OPERATING = (ROOT / "docs/operating.md").read_text(encoding="utf-8")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
Shade = enum.Enum("Shade", ["red", "green"])


def blocks(text, kind):
    return [code for found, code in FENCE.findall(text) if found == kind]


def rows(text, head):
    """Return the cells of the table with a given first row, without its two header rows."""
    table = text[text.index(head) :].split("\n\n")[0]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in table.splitlines()[2:]]


def code_spans(cell):
    """Return what is in code marks."""
    return re.findall(r"`([^`]+)`", cell)


def nc_session():
    (session,) = [block for block in blocks(README, "") if block.startswith("$ nc ")]
    return session.splitlines()[1:]


def check_session(ask):
    """Walk through the README's dialogue: the reply to each request is what is shown below it."""
    expected = nc_session()
    while expected:
        line = expected.pop(0)
        for reply in ask(line):
            assert (line, reply) == (line, expected.pop(0))


def test_the_first_example_is_served_as_the_readme_shows(tmp_path):
    (tmp_path / "sums.py").write_text(blocks(README, "python")[0], encoding="utf-8")
    session = next(block for block in blocks(README, "") if block.startswith("$ linepool run"))
    with run_server("sums.py", tmp_path) as server:
        check_session(lambda line: server.converse(line.encode() + b"\n").decode().splitlines())
        plain = [line for line in server.log if not line[:4].isdecimal()]  # without a time
        shown = session.replace("127.0.0.1:7000", server.address).splitlines()
        assert plain[: len(shown) - 1] == shown[1:]


def test_the_first_example_has_the_promised_ten_lines():
    assert "## Ten lines" in README
    assert len([line for line in blocks(README, "python")[0].splitlines() if line]) == 10


def test_the_figures_of_the_readme_are_those_of_the_page_on_benchmarks():
    head = next(line for line in README.splitlines() if line.startswith("| | linepool |"))
    servers = [cell.strip() for cell in head.strip("|").split("|")][1:]
    figures = {server: set[str]() for server in servers}
    for line in (ROOT / "docs/benchmarks.md").read_text(encoding="utf-8").splitlines():
        server, *cells = [cell.strip() for cell in line.strip("|").split("|")]
        if server in figures:
            figures[server].update(cell.removeprefix(">= ") for cell in cells)
    table = rows(README, head)
    assert len(table) == 5
    for _, *row in table:
        for server, figure in zip(servers, row, strict=True):
            assert figure == "-" or figure in figures[server], (server, figure)


def dialogues():
    """Return each example of the pages on handlers and resources, with the dialogue below it."""
    found = FENCE.findall(HANDLERS + RESOURCES)
    pairs = itertools.pairwise(found)
    return [
        (code, said)
        for (kind, code), (next_kind, said) in pairs
        if (kind, next_kind) == ("python", "")
    ]


@pytest.mark.parametrize("code", blocks(PROTOCOLS, "python"), ids=range(6))
def test_the_apps_of_the_page_on_protocols_can_be_served(code):
    names: dict[str, typing.Any] = {}
    exec(compile(code, "protocols.md", "exec", dont_inherit=True), names)
    assert names["app"].freeze().commands


def test_a_handler_asks_as_the_page_on_protocols_shows():
    code = next(code for code in blocks(PROTOCOLS, "python") if "linepool.Ask" in code)
    dialogue = next(one for one in blocks(PROTOCOLS, "") if one.startswith("> AUTH LOGIN"))
    names: dict[str, typing.Any] = {}
    exec(compile(code, "protocols.md", "exec", dont_inherit=True), names)
    asked = [line[2:] for line in dialogue.splitlines() if line.startswith("> ")]
    shown = [line for line in dialogue.splitlines() if not line.startswith("> ")]
    said = names["app"].ask("".join(f"{line}\r\n" for line in asked)).splitlines()
    assert said == ["220 ready", *shown]


def test_the_page_on_protocols_lists_the_errors_of_a_dialogue():
    table = rows(PROTOCOLS, "| kind | what is wrong |")
    assert {kind for row in table for kind in code_spans(row[0])} == CODED_ERRORS.keys()
    for kinds, _, coded, enhanced, _ in table:
        for kind, code, longer in zip(*map(code_spans, (kinds, coded, enhanced)), strict=False):
            assert CODED_ERRORS[kind].startswith(code)
            assert ENHANCED_ERRORS[kind].startswith(longer.removesuffix(" ..."))


def test_there_are_dialogues_to_check():
    assert len(dialogues()) >= 7


@pytest.mark.parametrize(("code", "dialogue"), dialogues())
def test_a_handler_answers_as_its_page_shows(default_app, code, dialogue):
    exec(code, {"__name__": "example"})
    lines = dialogue.splitlines(keepends=True)
    asked = "".join(line[2:] for line in lines if line.startswith("> "))
    shown = "".join(line for line in lines if not line.startswith("> "))
    assert default_app.ask(asked.encode()).decode().replace("\r\n", "\n") == shown


def test_the_test_that_the_page_on_resources_shows_passes():
    (code,) = (code for code in blocks(RESOURCES, "python") if "def test_" in code)
    space: dict[str, typing.Any] = {"__name__": "example"}
    exec(code, space)
    space["test_invite"]()


def test_the_tests_that_the_page_on_testing_shows_pass(tmp_path):
    shown = "\n".join(blocks(TESTING, "python"))
    (tmp_path / "test_sums.py").write_text(shown, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider"]
    done = subprocess.run(
        command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, shown.count("def test_")) == (0, 12), done.stdout


@pytest.mark.parametrize(
    ("annotation", "word", "message"),
    [
        (str, b"\xfe", "a must be UTF-8 text, not '\\xfe'."),
        (int, b"x", "a must be int, not 'x'."),
        (bool, b"x", "a must be bool (true or false), not 'x'."),
        (decimal.Decimal, b"x", "a must be Decimal such as 12.50, not 'x'."),
        (datetime.date, b"x", "a must be date such as 2026-01-31, not 'x'."),
        (Shade, b"x", "a must be red or green, not 'x'."),
        (typing.Literal["on", "off"], b"x", "a must be on or off, not 'x'."),
        (typing.Annotated[int, linepool.Range(1, 100)], b"0", "a must be int in 1..100, not '0'."),
    ],
)
def test_a_wrong_argument_is_refused_as_its_page_shows(annotation, word, message):
    app = App()

    def f(a):
        pass

    f.__annotations__["a"] = annotation
    app.handler(f)
    assert app.ask(b"F " + word + b"\n").decode().startswith(f"CLIENT_ERROR {message} Usage: F a:")
    assert f"`{message}`" in HANDLERS


def test_the_page_on_settings_is_up_to_date():
    page = settings_page.PAGE.read_text(encoding="utf-8")
    assert page == settings_page.page(), "run: ./dev python -m tests.examples.settings_page"


def test_run_has_an_option_for_every_setting(capsys):
    with pytest.raises(SystemExit):
        main(["run", "--help"])
    shown = set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
    assert set(settings_page.option_names()) <= shown


def test_the_signal_table_names_exactly_the_signals_that_the_master_handles():
    table = rows(COMMANDS_PAGE, "| signal to the master |")
    named = [name for row in table for name in row[0].split(", ")]
    assert sorted(named) == sorted(s.name.removeprefix("SIG") for s in obeying.SIGNALS)


@pytest.mark.parametrize("name", ["TERM", "INT", "QUIT"])
def test_every_signal_that_stops_ends_with_exit_status_0(tmp_path, name):
    with run_server(ROOT / "examples/sums.py", tmp_path) as server:
        server.process.send_signal(signal.Signals[f"SIG{name}"])
        assert server.process.wait(20) == 0


def test_the_page_on_commands_names_each_of_them():
    table = rows(COMMANDS_PAGE, "| command | effect |")
    named = [text.split()[1] for row in table for text in code_spans(row[0])]
    assert sorted(named) == sorted(COMMANDS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_file_that_a_page_names_exists(page):
    folders = ("linepool", "tests", "docs", "examples", "benchmarks")
    named = [
        name
        for name in code_spans(FENCE.sub("", page.read_text(encoding="utf-8")))
        if re.fullmatch(rf"({'|'.join(folders)})/[\w./-]*", name)
    ]
    assert [name for name in named if not (ROOT / name).exists()] == []


def anchors(page):
    heads = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_has_a_target(page):
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
        path, _, anchor = target.partition("#")
        if path.startswith("https:"):
            continue
        found = page.parent / path if path else page
        assert found.exists(), target
        assert not anchor or anchor in anchors(found), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_and_option_in_the_docs_exists(page, capsys):
    text = page.read_text(encoding="utf-8")
    lines = [
        line.removeprefix("$ ") for _, code in FENCE.findall(text) for line in code.splitlines()
    ]
    for line in [*lines, *code_spans(FENCE.sub("", text))]:
        words = line.split()
        if words[:1] != ["linepool"] or not words[1:] or not words[1].isalpha():
            continue
        assert words[1] in COMMANDS, line
        with pytest.raises(SystemExit):
            main([words[1], "--help"])
        options = re.findall(r"--[a-z-]+", capsys.readouterr().out)
        for word in words[2:]:
            assert not word.startswith("--") or word in options, line


def keys_in(head):
    return [key for row in rows(OPERATING, head) for key in code_spans(row[0])]


def test_status_has_the_keys_that_its_page_names(tmp_path):
    with run_server(ROOT / "examples/sums.py", tmp_path) as server:
        state = server.status()
    assert keys_in("| key | meaning |") == list(state)
    assert sorted(keys_in("| counter | counts |")) == sorted(state["counters"])
    meanings = {row[0]: row[1] for row in rows(OPERATING, "| key | meaning |")}
    for key in ("listeners", "tally", "connections", "workers"):
        value = state[key]
        keys = list(value[0] if isinstance(value, list) else value)
        assert code_spans(meanings[f"`{key}`"]) == keys


def test_the_control_socket_answers_as_its_page_shows(tmp_path):
    (session,) = [block for block in blocks(OPERATING, "") if "SCALE" in block]
    command, *replies = session.splitlines()
    asked = re.search(r"printf '(.*)' \|", command)
    assert asked is not None
    with (
        run_server(ROOT / "examples/sums.py", tmp_path) as server,
        Peer(f"unix:{server.control}") as peer,
    ):
        peer.send(asked[1].replace("\\n", "\n").encode())
        assert peer.rest().decode().splitlines() == replies


def test_every_documented_log_line_exists_in_the_source():
    source = "".join(path.read_text() for path in (ROOT / "linepool").rglob("*.py"))
    named = [text for row in rows(OPERATING, "| line | level |") for text in code_spans(row[0])]
    assert len(named) > 15
    for text in named:
        words = re.split(r"=|\.\.\.|: | N | \{", text)[0].strip()
        words = words.replace("worker recycled", "worker %s")
        assert f'"{words}' in source, text


def test_dev_has_the_commands_in_the_readme():
    dev = (ROOT / "dev").read_text(encoding="utf-8")
    for command in set(re.findall(r"\./dev ([a-z]+)", README)):
        assert re.search(rf"^    {command}\)", dev, re.MULTILINE), command


def test_the_one_liner_of_the_readme_works(tmp_path):
    (one_liner,) = [
        text for text in code_spans(FENCE.sub("", README)) if text.startswith("printf 'ADD")
    ]
    with run_server(ROOT / "examples/sums.py", tmp_path) as server:
        shell = subprocess.run(
            ["sh", "-c", one_liner.replace("7000", str(server.port))],
            env=ENVIRONMENT,
            capture_output=True,
            timeout=20,
            check=True,
        )
    assert shell.stdout == b"5\n"


def test_a_script_that_ends_with_run_takes_the_options():
    shown = subprocess.run(
        [sys.executable, ROOT / "examples/sums.py", "--bind", "127.0.0.1:x"],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert (shown.returncode, shown.stdout) == (2, "")
    assert "127.0.0.1:x" in shown.stderr
    assert shown.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "example",
    [
        *("sums.py", "guestbook.py", "kv.py", "calculator_rpc/calculator.py"),
        *("mailbox/smtp.py", "mailbox/pop3.py", "memcached/memcached.py", "redis/redis_server.py"),
    ],
)
def test_an_example_needs_no_package_that_it_does_not_name(example, tmp_path):
    path = ROOT / "examples" / example
    code = "import sys; sys.modules['cattrs'] = None; from linepool.cli import main; main()"
    command = [sys.executable, "-c", code, "check", str(path)]
    environment = {**ENVIRONMENT, "MAIL_FILE": str(tmp_path / "mail.db")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    text = path.read_text() + "".join(page.read_text() for page in path.parent.glob("README.md"))
    has_lmdb = "pip install lmdb" in text

    assert "commands" in done.stdout or (has_lmdb and "lmdb" in done.stderr), done.stderr
