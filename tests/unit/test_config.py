"""Configuration: command line over environment over file over app over default."""

import math
import os

import pytest

from linepool import App, SetupError
from linepool.kernel.cpus import available_cpus
from linepool.operate import env_file
from linepool.operate.config import ConfigError, Configuration, Given, configure, option_name
from linepool.operate.supervision import Passed, Supervision, claim, supervision_in
from linepool.settings import FIELDS, ProcessSettings, Settings, Workers, default_workers, written


@pytest.fixture(autouse=True)
def directory(tmp_path, monkeypatch):
    """Work in an empty directory, without configuration files."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refusal(**sources) -> str:
    app = sources.pop("app", App())
    options = sources.pop("options", {})
    environment = sources.pop("environment", {})
    with pytest.raises(SetupError) as error:
        configure(app, options, environment, **sources)
    return str(error.value)


def test_without_any_source_the_defaults_apply():
    configuration = configure(App(), {}, {})
    cpus = math.ceil(available_cpus())

    assert configuration.settings == Settings(workers=default_workers(cpus))
    assert configuration.sources == {}


def test_each_source_overrides_the_next(directory):
    app = App(idle_timeout=1, read_timeout=1, write_timeout=1, backlog=1)
    (directory / "linepool.toml").write_text("idle_timeout=2\nread_timeout=2\nwrite_timeout=2\n")
    environment = {"LINEPOOL_IDLE_TIMEOUT": "3", "LINEPOOL_READ_TIMEOUT": "3"}
    configuration = configure(app, {"idle_timeout": "4"}, environment)
    settings = configuration.settings

    assert (settings.idle_timeout, settings.read_timeout) == (4.0, 3.0)
    assert (settings.write_timeout, settings.backlog) == (2.0, 1)
    assert settings.graceful_timeout == Settings().graceful_timeout
    assert configuration.sources == {
        "idle_timeout": "command line",
        "read_timeout": "environment",
        "write_timeout": "linepool.toml",
        "backlog": "App(...)",
    }


def test_every_setting_can_come_from_every_source(directory):
    for name, field in FIELDS.items():
        value = field.default if not isinstance(field.default, (tuple, Workers)) else None
        if value is None or isinstance(value, float):
            continue
        text = written(name, value)
        (directory / "linepool.toml").write_text(f'{name} = "{text}"\n')
        is_early = field.metadata["is_early"]
        one = configure(App(), {name: value}, {}, os.devnull)
        if not is_early:
            one = configure(App(**{name: value}), {}, {}, os.devnull)
        two = configure(App(), {}, {})
        three = configure(App(), {}, {"LINEPOOL_" + name.upper(): text}, os.devnull)
        four = configure(App(), {name: text}, {}, os.devnull)

        assert one.settings == two.settings == three.settings == four.settings
        assert one.sources.keys() == two.sources.keys() == {name}


def test_values_in_a_file_may_have_toml_types(directory):
    (directory / "linepool.toml").write_text(
        'bind = ["127.0.0.1:1", "unix:/tmp/x"]\nworkers = 3\nidle_timeout = 5\nunix_mode = "660"\n'
    )
    settings = configure(App(), {}, {}).settings

    assert settings.bind == ("127.0.0.1:1", "unix:/tmp/x")
    assert settings.workers == Workers(3, 3)
    assert settings.idle_timeout == 5.0
    assert settings.unix_mode == 0o660


def test_a_file_may_begin_with_a_byte_order_mark_and_have_windows_line_endings(directory):
    (directory / "linepool.toml").write_bytes(
        b"\xef\xbb\xbfbacklog = 7\r\n# \xc3\xa9\r\nworkers = 3\r\n"
    )
    (directory / "a.env").write_bytes(b"\xef\xbb\xbfLINEPOOL_BACKLOG=8\r\n")

    settings = configure(App(), {}, {}).settings
    assert (settings.backlog, settings.workers) == (7, Workers(3, 3))
    assert env_file.read(["a.env"]) == [("a.env", {"LINEPOOL_BACKLOG": "8"})]


def test_keys_in_a_file_may_use_dashes(directory):
    (directory / "linepool.toml").write_text("idle-timeout = 5\n")

    assert configure(App(), {}, {}).settings.idle_timeout == 5.0


def test_pyproject_is_read_if_there_is_no_linepool_toml(directory):
    (directory / "pyproject.toml").write_text(
        '[project]\nname = "x"\n[tool.other]\na = 1\n[tool.linepool]\nidle_timeout = 5\n'
    )

    configuration = configure(App(), {}, {})
    assert configuration.settings.idle_timeout == 5.0
    assert configuration.sources == {"idle_timeout": "pyproject.toml"}

    (directory / "linepool.toml").write_text("read_timeout = 6\n")
    assert configure(App(), {}, {}).sources == {"read_timeout": "linepool.toml"}


def test_keys_in_pyproject_may_use_dashes(directory):
    (directory / "pyproject.toml").write_text("[tool.linepool]\nidle-timeout = 5\n")

    assert configure(App(), {}, {}).settings.idle_timeout == 5.0


@pytest.mark.parametrize("text", ["", "[project]\nname = 'x'\n", "[tool.other]\na = 1\n"])
def test_a_pyproject_without_our_table_is_ignored(directory, text):
    (directory / "pyproject.toml").write_text(text)

    assert configure(App(), {}, {}).sources == {}


@pytest.mark.parametrize(
    ("text", "targets"),
    [
        ("target = 'shop:app'", ["shop:app"]),
        ("target = ['shop:main', 'shop:admin@7001']", ["shop:main", "shop:admin@7001"]),
        ("", []),
    ],
)
def test_a_file_may_name_what_is_served(directory, text, targets):
    (directory / "linepool.toml").write_text(text)

    assert Given.read({}, {}).targets == targets


def test_an_explicit_file_replaces_the_default_ones(directory):
    (directory / "linepool.toml").write_text("idle_timeout = 2\n")
    (directory / "other.toml").write_text("read_timeout = 3\n")
    configuration = configure(App(), {}, {}, "other.toml")

    assert configuration.sources == {"read_timeout": "other.toml"}


def test_an_explicit_pyproject_is_read_like_the_default_one(directory):
    (directory / "pyproject.toml").write_text(
        '[project]\nname = "x"\n[tool.linepool]\nidle_timeout = 5\n'
    )

    assert configure(App(), {}, {}, "pyproject.toml").settings.idle_timeout == 5.0


def test_other_environment_variables_are_ignored():
    environment = {"PATH": "/bin", "IDLE_TIMEOUT": "5", "linepool_workers": "3", "XLINEPOOL_X": "1"}

    assert configure(App(), {}, environment).sources == {}


@pytest.mark.parametrize(
    "variables",
    [
        {"LINEPOOL_SERVICE_HOST": "10.0.0.2", "LINEPOOL_PORT": "tcp://10.0.0.2:7000"},
        {"LINEPOOL_PORT_7000_TCP_ADDR": "10.0.0.2", "LINEPOOL_SERVICE_PORT_LINES": "7000"},
        {"LINEPOOL_WORKERS_SERVICE_HOST": "10.0.0.2", "LINEPOOL_BIND_PORT": "tcp://10.0.0.2:7000"},
        {
            "LINEPOOL_CONTROL_1_PORT_7000_TCP": "tcp://10.0.0.2:7000",
            "LINEPOOL_WORKERS_NAME": "/a/b",
        },
        {"LINEPOOL_NAME": "/web/linepool", "LINEPOOL_ENV_LINEPOOL_WORKERS": "4"},
        {"LINEPOOL_RECORD_ENV_LANG": "C.UTF-8", "LINEPOOL_ENV_A\nB": "x"},
        {"LINEPOOL_HOME": "/opt/linepool", "LINEPOOL_": "x", "LINEPOOL__": "x"},
    ],
    ids=lambda variables: next(iter(variables)),
)
def test_variables_of_services_links_and_installers_are_ignored(variables):
    configuration = configure(App(), {}, variables)

    assert configuration.sources == {}
    assert list(configuration.warnings) == []


@pytest.mark.parametrize("name", FIELDS)
def test_no_setting_has_the_name_of_a_variable_that_services_and_links_set(name):
    assert not {"service", "port", "name", "env"} & set(name.split("_"))


def passed(count: object, pid: object = None, names: str = "") -> dict[str, str]:
    variables = {"LISTEN_FDS": str(count), "LISTEN_PID": str(os.getpid() if pid is None else pid)}
    return variables | ({"LISTEN_FDNAMES": names} if names else {})


def activated(environment: dict[str, str], **options: object) -> Configuration:
    return configure(App(), options, environment, supervision=supervision_in(environment))


def test_the_sockets_of_systemd_are_served_in_place_of_those_of_app_and_file(directory):
    (directory / "linepool.toml").write_text("bind = '127.0.0.1:1'\n")
    app = App(bind="127.0.0.1:2")
    configuration = configure(app, {}, {}, supervision=supervision_in(passed(2)))

    assert configuration.settings.bind == ("fd://3", "fd://4")
    assert configuration.sources == {"bind": "LISTEN_FDS"}
    assert list(configuration.warnings) == []


def test_an_explicit_address_wins_over_the_sockets_of_systemd_and_a_warning_says_so():
    text = "sockets of LISTEN_FDS are not served, for bind is given ({}): fd://3"
    variable = activated({"LINEPOOL_BIND": "127.0.0.1:1", **passed(1)})
    option = activated(passed(1), bind=["127.0.0.1:1"])
    both = activated(passed(1), bind=["127.0.0.1:1", "fd://3"])

    assert variable.settings.bind == option.settings.bind == ("127.0.0.1:1",)
    assert variable.warnings == [text.format("environment")]
    assert option.warnings == [text.format("command line")]
    assert list(both.warnings) == []


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        (passed(1, 1), "LISTEN_FDS is meant for the process '1' (LISTEN_PID)"),
        (passed(1, ""), "LISTEN_FDS is meant for the process '' (LISTEN_PID)"),
        (passed("-1"), "LISTEN_FDS is not a number of sockets: '-1'"),
        (passed("two"), "LISTEN_FDS is not a number of sockets: 'two'"),
        (passed("9" * 30), "LISTEN_FDS is not a number of sockets"),
        (passed(""), ""),
        (passed(0), ""),
        ({"LISTEN_PID": "x"}, ""),
        ({"NOTIFY_SOCKET": "vsock:2:1"}, "NOTIFY_SOCKET is not a path or @NAME: 'vsock:2:1'"),
        ({"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "3 s"}, "WATCHDOG_USEC is not a number of"),
    ],
)
def test_what_a_supervisor_says_to_another_process_or_wrongly_is_left_alone(environment, words):
    configuration = activated(environment)

    assert configuration.sources == {}
    assert "".join(configuration.warnings).startswith(words)
    assert bool(configuration.warnings) == bool(words)


def test_names_that_do_not_match_the_number_of_sockets_are_ignored():
    configuration = activated(passed(2, names="web"))

    assert configuration.settings.bind == ("fd://3", "fd://4")
    assert list(configuration.warnings) == ["LISTEN_FDNAMES does not have 2 names: 'web'"]


NAMED = Supervision(
    passed=[
        Passed(3, "web"),
        Passed(4, "board", "other"),
        Passed(5, "admin"),
        Passed(6, "web"),
        Passed(7, "clients", "socket"),
    ]
)


def test_a_name_in_bind_becomes_all_descriptors_of_that_name():
    options = {"bind": ["127.0.0.1:0", "systemd:web"]}
    configuration = configure(App(), options, {}, supervision=NAMED)

    assert configuration.settings.bind == ("127.0.0.1:0", "fd://3", "fd://6")
    assert list(configuration.warnings) == [
        "sockets of LISTEN_FDS are not served, for bind is given (command line): systemd:admin"
    ]


def test_of_descriptors_with_names_only_listeners_are_served_by_default():
    configuration = configure(App(), {}, {}, supervision=NAMED)

    assert configuration.settings.bind == ("fd://3", "fd://5", "fd://6")


def test_if_no_descriptor_is_a_listener_the_sockets_are_taken_so_that_the_error_says_why():
    supervision = Supervision(passed=[Passed(3, "connection", "socket"), Passed(4, "b", "other")])

    assert configure(App(), {}, {}, supervision=supervision).settings.bind == ("fd://3",)


def test_without_a_supervisor_a_name_in_bind_is_only_looked_at():
    assert configure(App(), {"bind": "systemd:web"}, {}).settings.bind == ("systemd:web",)


@pytest.mark.parametrize(
    ("supervision", "bind", "words"),
    [
        (NAMED, "systemd:www", "bind: no socket has the name 'www'; there are web, admin"),
        (NAMED, "systemd:web fd://6", "bind: the socket fd://6 is given twice"),
        (Supervision(), "systemd:www", "'www': LISTEN_FDS is not set: is there a .socket unit?"),
        (
            Supervision(passed=[Passed(3)]),
            "systemd:www",
            "'www': LISTEN_FDNAMES gives no names; use fd://N",
        ),
        (supervision_in(passed(1, 1)), "systemd:www", "'www': LISTEN_FDS is meant for the process"),
    ],
)
def test_a_name_that_cannot_be_resolved_is_refused_with_those_that_there_are(
    supervision, bind, words
):
    with pytest.raises(ConfigError) as caught:
        configure(App(), {"bind": bind}, {}, supervision=supervision)

    assert words in str(caught.value)


def test_what_a_supervisor_says_is_kept_from_children_and_kept_for_an_exec():
    notices = {"NOTIFY_SOCKET": "@n", "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}
    environment = {**passed(0), **notices, "HOME": "/"}

    supervision = claim(environment)

    assert environment == {"HOME": "/"}
    assert supervision == Supervision(
        notify_socket="@n", watchdog_s=3.0, for_exec=notices, warnings=[], passed=[]
    )


def test_a_watchdog_of_another_process_is_not_fed():
    environment = {"NOTIFY_SOCKET": "@n", "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}

    assert supervision_in(environment).watchdog_s == 0


@pytest.mark.parametrize("value", ["", " ", "\n"])
def test_an_empty_variable_counts_as_not_set(value):
    variables = {"LINEPOOL_" + name.upper(): value for name in FIELDS}

    assert configure(App(backlog=5), {}, variables).sources == {"backlog": "App(...)"}


@pytest.mark.parametrize(
    ("variable", "near"),
    [
        ("LINEPOOL_WROKERS", "LINEPOOL_WORKERS"),
        ("LINEPOOL_WORKER", "LINEPOOL_WORKERS"),
        ("LINEPOOL_IDLE_TIMOUT", "LINEPOOL_IDLE_TIMEOUT"),
        ("LINEPOOL_idle-timeout", "LINEPOOL_IDLE_TIMEOUT"),
        ("LINEPOOL_\udcffBACKLOG", "LINEPOOL_BACKLOG"),
    ],
)
def test_a_variable_that_is_nearly_a_setting_is_named(variable, near):
    configuration = configure(App(), {}, {variable: "5"})
    shown = variable.replace("\udcff", "\\udcff")

    assert configuration.sources == {}
    assert configuration.warnings == [
        f"environment: {shown} is not a setting; did you mean {near}?"
    ]


def test_an_unknown_setting_is_refused_with_its_source_and_the_nearest_known_one(directory):
    (directory / "bad.toml").write_text("idle_timout = 5\n")
    text = "unknown setting 'idle_timout'; did you mean 'idle_timeout'?"

    assert refusal(options={"idle_timout": "5"}) == f"command line: {text}"
    assert refusal(file="bad.toml") == f"bad.toml: {text}"


def test_an_invalid_value_is_refused_with_its_source(directory):
    (directory / "bad.toml").write_text("backlog = 0\n")
    text = "backlog must be a whole number, at least 1 and at most 65535, not "

    assert refusal(options={"backlog": "0"}) == f"command line: {text}'0'"
    assert refusal(environment={"LINEPOOL_BACKLOG": "0"}) == f"environment: {text}'0'"
    assert refusal(file="bad.toml") == f"bad.toml: {text}0"
    assert refusal(app=App(backlog=0)) == f"App(...): {text}0"


def test_an_invalid_value_is_refused_even_if_it_is_overridden():
    assert refusal(app=App(backlog=0), options={"backlog": "5"}).startswith("App(...): backlog")


def test_settings_that_contradict_each_other_are_refused():
    assert refusal(options={"min_spare": "5", "max_spare": "2"}) == (
        "max_spare (2) must not be below min_spare (5)"
    )


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("linepool.toml", b"idle_timeout = ", "linepool.toml is not valid TOML: "),
        ("linepool.toml", b"idle_timeout = '\xff'", "linepool.toml is not valid TOML"),
        (
            "linepool.toml",
            b"target = ''",
            "linepool.toml: target must be a TARGET such as 'shop.stock:app'",
        ),
        ("linepool.toml", b"target = [1]", "linepool.toml: target must be a TARGET such as "),
        ("linepool.toml", b"[idle_timeout]\nx = 1", "linepool.toml: idle_timeout must be "),
        (
            "linepool.toml",
            b"[linepool]\nworkers = 1",
            "linepool.toml: the settings belong at the top of the file",
        ),
        ("pyproject.toml", b"[tool", "pyproject.toml is not valid TOML: "),
        ("pyproject.toml", b"tool = 3", "pyproject.toml"),
        ("pyproject.toml", b"tool.linepool = 3", "pyproject.toml"),
    ],
    ids=repr,
)
def test_an_invalid_file_is_refused_in_one_line(directory, name, content, message):
    (directory / name).write_bytes(content)

    assert refusal().startswith(message)
    assert "\n" not in refusal()


def test_an_unreadable_file_is_refused_in_one_line(directory):
    assert refusal(file="nope.toml") == "cannot read nope.toml: No such file or directory"
    assert refusal(file=str(directory)) == f"cannot read {directory}: Is a directory"


def test_a_key_given_with_dashes_and_with_underscores_is_refused(directory):
    (directory / "linepool.toml").write_text("idle_timeout = 4\nidle-timeout = 3\n")

    assert "idle_timeout" in refusal()


def test_an_option_is_named_after_its_setting():
    assert option_name("max_line_bytes") == "--max-line-bytes"


def test_settings_of_the_processes_are_known_without_the_app(directory):
    (directory / "linepool.toml").write_text("user = 33\numask = '027'\nworkers = 3\n")
    given = Given.read({"group": "daemon"}, {"LINEPOOL_CHDIR": "/tmp"})

    assert given.process_settings() == ProcessSettings(
        user="33", group="daemon", umask=0o027, chdir="/tmp"
    )
    (directory / "linepool.toml").unlink()  # it is read once
    settings = given.configuration(App(workers=2, backlog=7)).settings
    assert (settings.user, settings.workers, settings.backlog) == ("33", Workers(3, 3), 7)


def test_the_app_cannot_set_them():
    app = App()
    app.settings = {"user": "root"}

    why = "user cannot be set by the app, because it counts before the app is loaded; set it on the"
    assert refusal(app=app).startswith(f"App(...): {why}")
    with pytest.raises(SetupError, match=f"^{why}"):
        App(user="root")  # type: ignore[call-arg]


def test_a_file_that_root_opens_is_not_named_by_the_app():
    app = App(record="/etc/shadow")

    assert configure(app, {}, {}).settings.record == "/etc/shadow"
    assert configure(app, {"record": "/tmp/x", "user": "nobody"}, {}).settings.record == "/tmp/x"
    assert refusal(app=app, options={"user": "nobody"}).startswith(
        "App(...): record cannot be set by the app if user is given, because root opens the file;"
    )


def test_octal_digits_in_a_file_are_a_string(directory):
    (directory / "linepool.toml").write_text("umask = 27\n")

    assert refusal() == ("linepool.toml: umask must be a string of octal digits, such as '660'")
