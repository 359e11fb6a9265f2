"""Every setting is refused with a bad value, on one line that says what would be right."""

from __future__ import annotations

import json

import jsonschema
import pytest

from linepool import cli
from linepool.errors import SetupError
from linepool.operate.config_schema import schema
from linepool.settings import FIELDS, check_names, parse_setting, written
from linepool.settings.keywords import AppSettings

# fmt: off
REFUSED: dict[str, tuple[object, str]] = {
    "bind": (
        "-1",
        "with a port: -1:7000; it is HOST:PORT, PORT, :PORT, [::1]:PORT, unix:/PATH, unix:@NAME,"
        " fd://N or systemd:NAME",
    ),
    "backlog": ("-1", "a whole number, at least 1 and at most 65535"),
    "unix_mode": ("-1", "a file mode in octal, such as 660"),
    "reuseport": ("-1", "on or off"),
    "scheme": ("-1", "shared or dispatch or accept"),
    "park_after": ("-1", "a number of seconds, at least 0.001 and at most 1000000000"),
    "hot_connections": ("-1", "a whole number, at least 1 and at most 1000"),
    "hand_off_after": ("-1", "a number of seconds, at least 0.001 and at most 1000000000"),
    "max_connections": ("-1", "a whole number, at least 1 and at most 1000000"),
    "max_connections_per_address": ("-1", "a whole number, at least 0 and at most 1000000"),
    "allow": (
        "10.1.2.3/8",
        "addresses, networks such as 10.0.0.0/8 and 2001:db8::/32, or unix; 10.1.2.3/8 has bits set behind"
        " its prefix; it is 10.0.0.0/8 or 10.1.2.3",
    ),
    "deny": (
        "-1",
        "addresses, networks such as 10.0.0.0/8 and 2001:db8::/32, or unix; -1 is not an address",
    ),
    "allow_uids": ("root", "numbers of users, such as 0 1000 (those of a name: id -u NAME)"),
    "proxy_from": (
        "10.0.0.1:80",
        "addresses, networks such as 10.0.0.0/8 and 2001:db8::/32, or unix; 10.0.0.1:80 must be written"
        " without brackets and port",
    ),
    "proxy_timeout": ("-1", "a number of seconds, at least 0.01 and at most 1000000000"),
    "tls_cert": (7, "a path or a list of paths"),
    "tls_key": (["a\0"], "paths, which are not empty and have no NUL in them"),
    "tls_ca": (7, "a string"),
    "tls_verify": ("-1", "auto or off or optional or required"),
    "tls_min_version": ("1.1", "1.2 or 1.3"),
    "tls_ciphers": (7, "a string"),
    "tls_alpn": (7, "a string or a list of strings"),
    "tls_handshake_timeout": ("-1", "a number of seconds, at least 0.01 and at most 1000000000"),
    "tls_max_handshakes": ("-1", "a whole number, at least 1 and at most 100000"),
    "starttls": ("-1", "on or off"),
    "max_requests_per_second": ("-1", "a number of requests, at least 0 and at most 1000000"),
    "request_burst": ("-1", "a whole number, at least 0 and at most 1000000"),
    "workers": ("-1", "N or MIN:MAX with 1 <= MIN <= MAX <= 1000, or 0"),
    "min_spare": ("-1", "a whole number, at least 0 and at most 1000"),
    "max_spare": ("-1", "a whole number, at least 0 and at most 1000"),
    "grow_delay": ("-1", "a number of seconds, at least 0 and at most 1000000000"),
    "max_spawn_rate": ("-1", "a number of workers per second, at least 0.1 and at most 1000"),
    "shrink_window": ("-1", "a number of seconds, at least 0.1 and at most 1000000000"),
    "min_worker_age": ("-1", "a number of seconds, at least 0 and at most 1000000000"),
    "grow_on_cpu": ("-1", "on or off"),
    "request_timeout": ("-1", "a number of seconds, at least 0 and at most 1000000000"),
    "kill_grace": ("-1", "a number of seconds, at least 0 and at most 1000000000"),
    "slow_request": ("-1", "a number of seconds, at least 0 and at most 1000000000"),
    "stopped_timeout": ("-1", "a number of seconds, at least 0 and at most 1000000000"),
    "observer_timeout": ("0", "a number of seconds, at least 0.1 and at most 1000000000"),
    "max_requests": ("-1", "a whole number, at least 0"),
    "max_requests_jitter": ("-1", "a fraction, at least 0 and at most 1"),
    "max_rss_mb": ("-1", "a whole number, at least 0"),
    "max_age": ("-1", "a number of seconds, at least 0 and at most 1000000000"),
    "idle_timeout": ("-1", "a number of seconds, at least 0.01 and at most 1000000000"),
    "connection_max_age": ("-1", "a number of seconds, at least 0 and at most 1000000000"),
    "read_timeout": ("-1", "a number of seconds, at least 0.01 and at most 1000000000"),
    "write_timeout": ("-1", "a number of seconds, at least 0.01 and at most 1000000000"),
    "push_timeout": ("-1", "a number of seconds, at least 0.01 and at most 1000000000"),
    "max_line_bytes": ("-1", "a whole number, at least 16 and at most 1073741824"),
    "max_body_bytes": ("-1", "a whole number, at least 0 and at most 1073741824"),
    "max_unfinished_mb": ("-1", "a whole number, at least 1"),
    "poison_deaths": ("-1", "a whole number, at least 0"),
    "poison_window": ("-1", "a number of seconds, at least 0.1 and at most 1000000000"),
    "poison_pause": ("-1", "a number of seconds, at least 0.1 and at most 1000000000"),
    "graceful_timeout": ("-1", "a number of seconds, at least 0 and at most 1000000000"),
    "spawn_timeout": ("-1", "a number of seconds, at least 0.1 and at most 1000000000"),
    "respawn_backoff": ("-1", "a number of seconds, at least 0.001 and at most 1000000000"),
    "reload_batch": ("-1", "a fraction, at least 0.001 and at most 1"),
    "reload": ("-1", "on or off"),
    "reload_include": ("/a\x00b", "paths, which are not empty and have no NUL in them"),
    "control": ("/a\x00b", "a path; every local user may connect to an abstract socket"),
    "http": ("fd://3", "HOST:PORT, PORT, unix:/PATH or off"),
    "http_hosts": ("a:80", "names of hosts without a port, such as metrics.example.org"),
    "agent": ("fd://3", "HOST:PORT, PORT or off"),
    "bridge": (
        "http://h:1",
        "redis://HOST:PORT/0, or rediss:// with TLS, USER:PASSWORD@ before HOST if needed, or off",
    ),
    "incidents": ("/a\x00b", "a path"),
    "record": ("/a\x00b", "a path"),
    "log_file": ("/a\x00b", "a path"),
    "log_format": ("-1", "text or json"),
    "log_config": ("/a\x00b", "a path"),
    "access_log": ("/a\x00b", "a path"),
    "access_log_format": ("{comand}", "json, or one line with fields such as {command} and {duration};"
    " {comand} is unknown: did you mean {command}?"),
    "log_level": ("-1", "debug or info or warning or error"),
    "log_limit": ("-1", "a whole number, at least 0 and at most 10000"),
    "log_requests": ("-1", "command or line"),
    "user": ([], "a name or a number"),
    "group": ([], "a name or a number"),
    "no_new_privileges": ("-1", "auto or on or off"),
    "umask": ("-1", "inherit, or a mask in octal, such as 027"),
    "chdir": ("/a\x00b", "a path"),
    "load_timeout": ("-1", "a number of seconds, at least 0.1 and at most 1000000000"),
    "pid_file": ("/a\x00b", "a path"),
    "max_core_mb": ("-1", "inherit, or a whole number, at least 0 and at most 1099511627776"),
}
# fmt: on


@pytest.mark.parametrize("name", FIELDS)
def test_a_bad_value_is_refused_with_what_would_be_right(name):
    bad, right = REFUSED[name]
    with pytest.raises(SetupError) as error:
        parse_setting(name, bad, "linepool.toml")
    assert str(error.value) == f"linepool.toml: {name} must be {right}, not {bad!r}"


@pytest.mark.parametrize("name", ["workers", "backlog", "request_timeout", "max_age", "unix_mode"])
@pytest.mark.parametrize(
    "text", ["1_0", "\N{ARABIC-INDIC DIGIT THREE}", " 5", "2: 5", "5\n", "\N{NO-BREAK SPACE}5"]
)
def test_a_number_has_no_digits_or_marks_that_only_python_reads(name, text):
    with pytest.raises(SetupError, match=name):
        parse_setting(name, text, "here")


def test_settings_that_contradict_each_other_are_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["check", "--settings", "--min-spare", "4", "--max-spare", "2"]) == 2
    assert capsys.readouterr().err == "linepool: max_spare (2) must not be below min_spare (4)\n"


def test_an_unknown_setting_is_named_with_one_that_is_near():
    with pytest.raises(SetupError, match=r"unknown setting 'wrokers'; did you mean 'workers'\?"):
        check_names(["workers", "wrokers"])
    with pytest.raises(
        SetupError, match="unknown setting 'zzz'; 'linepool check --settings' lists"
    ):
        check_names(["zzz"])


# -- the schema for editors


def test_the_schema_is_one_and_takes_the_defaults():
    found = schema()
    jsonschema.Draft7Validator.check_schema(found)
    defaults = {
        name: one["default"] for name, one in found["properties"].items() if "default" in one
    }
    assert defaults.keys() >= FIELDS.keys() - {"workers"}
    jsonschema.validate(
        {**defaults, "workers": "2:8", "max-age": 3, "app": {"x": 1}, "target": "shop"}, found
    )
    for name, value in defaults.items():
        assert written(name, parse_setting(name, value, "x")) == written(name, FIELDS[name].default)


@pytest.mark.parametrize(
    "wrong",
    [
        {"wrokers": 1},
        {"workers": -1},
        {"workers": "many"},
        {"scheme": "shard"},
        {"request_timeout": -1},
        {"max-rss-mb": "x"},
        {"unix_mode": 440},
        {"grow_on_cpu": "maybe"},
        {"app": 3},
        {"target": 3},
    ],
)
def test_the_schema_refuses_what_the_server_refuses(wrong):
    assert not jsonschema.Draft7Validator(schema()).is_valid(wrong)


def test_the_command_prints_the_schema(capsys):
    assert cli.main(["config-schema"]) == 0
    assert json.loads(capsys.readouterr().out) == schema()


def test_keywords_of_apps_are_the_settings_that_an_app_may_have():
    names = [name for name, field in FIELDS.items() if not field.metadata["is_early"]]
    assert list(AppSettings.__annotations__) == names
