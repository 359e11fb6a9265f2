"""Settings: their syntax, their limits, and the errors about invalid values."""

import math
import re

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from linepool import SetupError
from linepool.address import Address, parse_address
from linepool.master import changes
from linepool.settings import (
    FIELDS,
    INHERIT,
    MAX_WORKERS,
    Settings,
    Workers,
    check_names,
    check_names_of_app,
    default_workers,
    parse_setting,
    written,
)
from linepool.settings.foreground import WITHOUT_EFFECT, without_effect

NAMES = list(FIELDS)
SECONDS = [name for name, field in FIELDS.items() if field.metadata["unit"] == "s"]
WHOLE = [
    name
    for name, field in FIELDS.items()
    if type(field.default) is int and field.metadata["unit"] != "octal"
]
PATHS = [name for name, field in FIELDS.items() if field.metadata["unit"].startswith("path")]
LISTS = [name for name, field in FIELDS.items() if field.default == ()]
"""Settings that an empty string empties."""
ANY_TEXT = [*PATHS, "user", "group", "tls_ciphers", "tls_alpn"]
SWITCHED = ["http", "agent", "bridge"]
"""Settings that an empty string switches off."""
FLAGS = [name for name, field in FIELDS.items() if type(field.default) is bool]


def refusal(name: str, value: object, source: str = "here") -> str:
    with pytest.raises(SetupError) as error:
        parse_setting(name, value, source)
    return str(error.value)


@pytest.mark.parametrize("name", NAMES)
def test_every_default_can_be_written_and_parsed(name):
    default = FIELDS[name].default

    assert parse_setting(name, written(name, default), "here") == default
    assert parse_setting(name, default, "here") == default


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_has_a_unit_a_meaning_and_a_name_in_plain_letters(name):
    field = FIELDS[name]

    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", name)
    assert isinstance(field.metadata["unit"], str)
    assert field.metadata["doc"]
    assert not field.metadata["doc"].endswith(".")


def test_the_defaults_are_consistent():
    settings = Settings()

    assert settings.bind == ("127.0.0.1:7000",)
    assert attrs.evolve(settings) == settings


def test_settings_cannot_be_changed():
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        Settings().backlog = 5  # type: ignore[misc]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [[[1]], {}, object()], ids=["list", "dict", "object"])
def test_a_value_of_a_wrong_type_is_refused_with_the_name_of_the_setting(name, value):
    assert refusal(name, value, "linepool.toml").startswith(f"linepool.toml: {name} must be ")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (name, value)
        for name in NAMES
        for value in ("", "?", "\0")
        if name not in ANY_TEXT and (value or FIELDS[name].metadata["unit"] != "networks")
    ],
)
def test_an_invalid_string_is_refused_with_what_would_be_right(name, value):
    if name in LISTS and not value:
        assert parse_setting(name, value, "here") == ()
        return
    if name in SWITCHED and not value:
        assert parse_setting(name, value, "here") == ""
        return
    message = refusal(name, value)

    assert message.startswith(f"here: {name} must be ")
    assert message.endswith(f", not {value!r}")
    assert len(message) < 200


@pytest.mark.parametrize("name", SECONDS)
@pytest.mark.parametrize("value", ["nan", "inf", "-1", "soon", True, 1e10, None], ids=repr)
def test_a_duration_is_a_finite_number_of_seconds(name, value):
    assert "a number of seconds" in refusal(name, value)


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("value", ["1.5", "-1", "many", True, 2.5, "1e3", None], ids=repr)
def test_a_count_is_a_whole_number(name, value):
    assert "a whole number" in refusal(name, value)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("idle_timeout", "1.5", 1.5),
        ("idle_timeout", 60, 60.0),
        ("idle_timeout", 0.01, 0.01),
        ("graceful_timeout", 0, 0.0),
        ("backlog", "1", 1),
        ("backlog", 65535, 65535),
        ("max_body_bytes", "0", 0),
        ("max_body_bytes", 2**30, 2**30),
        ("workers", "4", Workers(4, 4)),
        ("workers", 4, Workers(4, 4)),
        ("workers", "2:32", Workers(2, 32)),
        ("workers", f"1:{MAX_WORKERS}", Workers(1, MAX_WORKERS)),
        ("workers", Workers(1, 2), Workers(1, 2)),
        ("bind", "127.0.0.1:0", ("127.0.0.1:0",)),
        (
            "bind",
            "127.0.0.1:1 [::1]:2,unix:/run/x fd://3",
            ("127.0.0.1:1", "[::1]:2", "unix:/run/x", "fd://3"),
        ),
        ("bind", ["localhost:1", "unix:/a"], ("localhost:1", "unix:/a")),
        ("unix_mode", "660", 0o660),
        ("unix_mode", "0660", 0o660),
        ("unix_mode", "0o660", 0o660),
        ("unix_mode", 0o660, 0o660),
        ("unix_mode", "0", 0),
        ("umask", "027", 0o027),
        ("umask", "0", 0),
        ("umask", "Inherit", INHERIT),
        ("max_core_mb", 0, 0),
        ("max_core_mb", "inherit", INHERIT),
        ("user", "www-data", "www-data"),
        ("user", 33, "33"),
        ("no_new_privileges", "OFF", "off"),
        ("log_level", "WARNING", "warning"),
        ("control", "/run/x.sock", "/run/x.sock"),
        ("control", "off", "off"),
    ],
    ids=repr,
)
def test_a_valid_value_is_accepted(name, value, expected):
    parsed = parse_setting(name, value, "here")

    assert parsed == expected
    assert type(parsed) is type(expected)


@pytest.mark.parametrize("name", FLAGS)
@pytest.mark.parametrize(
    "value", ["on", "ON", "true", "1", True, "off", "no", "False", "0", False], ids=repr
)
def test_a_flag_is_on_or_off(name, value):
    parsed = parse_setting(name, value, "here")

    assert parsed is (str(value).lower() in ("on", "true", "yes", "1"))
    assert parse_setting(name, written(name, parsed), "here") is parsed


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("workers", "0:2", "N or MIN:MAX with 1 <= MIN <= MAX <= 1000, or 0, not '0:2'"),
        ("workers", "5:2", "N or MIN:MAX with 1 <= MIN <= MAX <= 1000, or 0, not '5:2'"),
        ("workers", "1:1001", "N or MIN:MAX with 1 <= MIN <= MAX <= 1000, or 0, not '1:1001'"),
        ("workers", "-1", "N or MIN:MAX with 1 <= MIN <= MAX <= 1000, or 0, not '-1'"),
        ("workers", "auto", "N or MIN:MAX, such as 4 or 2:32, not 'auto'"),
        ("workers", "2:", "N or MIN:MAX, such as 4 or 2:32, not '2:'"),
        ("workers", ":4", "N or MIN:MAX, such as 4 or 2:32, not ':4'"),
        ("workers", "1:2:3", "N or MIN:MAX, such as 4 or 2:32, not '1:2:3'"),
        ("workers", True, "N or MIN:MAX, such as 4 or 2:32, not True"),
        ("idle_timeout", 0, "a number of seconds, at least 0.01 and at most 1000000000, not 0"),
        ("idle_timeout", "soon", "a number of seconds, not 'soon'"),
        ("backlog", 0, "a whole number, at least 1 and at most 65535, not 0"),
        ("backlog", 65536, "a whole number, at least 1 and at most 65535, not 65536"),
        ("backlog", "many", "a whole number, not 'many'"),
        ("max_line_bytes", 15, "a whole number, at least 16 and at most 1073741824, not 15"),
        ("max_body_bytes", -1, "a whole number, at least 0 and at most 1073741824, not -1"),
        ("max_requests", -1, "a whole number, at least 0, not -1"),
        ("scheme", "magic", "shared or dispatch or accept, not 'magic'"),
        ("log_level", "loud", "debug or info or warning or error, not 'loud'"),
        ("unix_mode", "999", "a file mode in octal, such as 660, not '999'"),
        ("unix_mode", "1000", "a file mode in octal, such as 660, not '1000'"),
        ("unix_mode", -1, "a file mode in octal, such as 660, not -1"),
        ("umask", "888", "inherit, or a mask in octal, such as 027, not '888'"),
        ("max_core_mb", "some", "inherit, or a whole number, not 'some'"),
        ("user", True, "a name or a number, not True"),
        ("chdir", "a\0b", "a path, not 'a\\x00b'"),
        ("bind", [], "at least one address, not []"),
        ("bind", [1], "a string or a list of strings, not [1]"),
        ("control", 3, "a string, not 3"),
    ],
    ids=repr,
)
def test_an_invalid_value_is_refused_with_what_would_be_right(name, value, message):
    assert refusal(name, value) == f"here: {name} must be {message}"


def test_a_number_for_a_file_mode_is_never_ambiguous():
    for mode in range(0o1000):
        assert parse_setting("unix_mode", mode, "here") == mode
    for number in (660, 600, 770):
        assert "octal" in refusal("unix_mode", number)


@pytest.mark.parametrize(
    "address",
    [
        *(
            "70000",
            ":70000",
            "host",
            "host:",
            "x y",
            "http://host:1/",
            "/run/x",
            "host:x",
            "host:70000",
            "host:-1",
            "host:+1",
            "a:b:1",
        ),
        *(
            "::1:7000",
            "[::1]",
            "[::1:7000",
            "unix:",
            "unix:@",
            "unix:a\0",
            "fd://",
            "fd://x",
            "fd://-1",
            "host:٣",
            "fd://9999999999",
        ),
    ],
)
def test_an_invalid_address_is_refused(address):
    text = refusal("bind", address)
    assert text.startswith("here: bind must be ")
    assert text.endswith(
        "HOST:PORT, PORT, :PORT, [::1]:PORT, unix:/PATH, unix:@NAME, fd://N or systemd:NAME,"
        f" not {address!r}"
    )
    assert refusal("bind", ["127.0.0.1:1", address]).startswith("here: bind must be ")


@pytest.mark.parametrize(
    ("address", "hint"),
    [
        ("localhost", "with a port: localhost:7000;"),
        ("http://host:80/", "without a scheme: host:80;"),
        ("host:70000", "with a port up to 65535;"),
        (f"host:{'9' * 5000}", "with a port up to 65535;"),
        ("::1:7000", "with brackets around an IPv6 address: [::1]:7000;"),
        ("/run/x", "with unix: before a path: unix:/run/x;"),
    ],
)
def test_what_is_nearly_an_address_is_answered_with_what_would_be_one(address, hint):
    assert f"bind must be {hint} it is HOST:PORT, " in refusal("bind", address)


def test_a_port_alone_is_local_and_one_behind_a_colon_is_for_all():
    assert parse_address("7000") == Address(host="127.0.0.1", port=7000)
    assert parse_address(":7000") == Address(host="0.0.0.0", port=7000)
    assert parse_address("[::]:7000") == Address(host="::", port=7000)


@pytest.mark.parametrize(
    ("wrong", "near"),
    [
        ("workes", "workers"),
        ("idle_timout", "idle_timeout"),
        ("IDLE_TIMEOUT", "idle_timeout"),
        ("idle-timeout", "idle_timeout"),
        ("max_line", "max_line_bytes"),
        ("loglevel", "log_level"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest_known_one(wrong, near):
    with pytest.raises(SetupError) as error:
        check_names(["workers", wrong])
    assert str(error.value) == f"unknown setting {wrong!r}; did you mean {near!r}?"


@pytest.mark.parametrize("wrong", ["", "x", "?" * 1000])
def test_a_name_unlike_any_setting_is_refused_too(wrong):
    with pytest.raises(SetupError, match="unknown setting"):
        check_names([wrong])


def test_an_app_cannot_set_what_counts_before_it_is_loaded():
    check_names_of_app(["workers", "record"])
    for name in ("user", "group", "umask", "chdir", "pid_file", "max_core_mb", "no_new_privileges"):
        with pytest.raises(SetupError, match=f"^{name} cannot be set by the app, because"):
            check_names_of_app(["workers", name])
    with pytest.raises(SetupError, match="unknown setting 'usr'"):
        check_names_of_app(["usr"])


def test_a_reload_takes_no_names_of_files_from_an_app_that_root_would_open():
    for name, field in FIELDS.items():
        if name == "load_timeout" or name.startswith("tls_"):  # which the loader reads before that
            continue
        if field.metadata["unit"] == "path" or field.metadata["is_early"]:
            assert name in changes.FIXED + changes.FIXED_FOR_ANOTHER_USER


def test_every_known_name_is_accepted():
    check_names(NAMES)


def test_the_default_pool_size_depends_on_the_number_of_cpus():
    assert default_workers(1) == Workers(1, 4)
    assert default_workers(2) == Workers(1, 8)
    assert default_workers(64) == Workers(1, 256)


def test_the_default_pool_of_the_largest_machine_is_within_the_limit():
    assert default_workers(1024).max <= MAX_WORKERS


def test_workers_are_shown_in_the_syntax_of_the_setting():
    assert str(Workers(4, 4)) == "4"
    assert str(Workers(2, 32)) == "2:32"


@given(st.sampled_from(SECONDS), st.floats(0.1, 1e9))
def test_every_duration_can_be_written_and_parsed(name, seconds):
    assert parse_setting(name, written(name, seconds), "here") == seconds


@given(st.integers(0, 0o777))
def test_every_file_mode_can_be_written_and_parsed(mode):
    assert parse_setting("unix_mode", written("unix_mode", mode), "here") == mode


@given(st.integers(1, MAX_WORKERS), st.integers(1, MAX_WORKERS))
def test_every_pair_of_bounds_can_be_written_and_parsed(one, other):
    workers = Workers(min(one, other), max(one, other))

    assert parse_setting("workers", written("workers", workers), "here") == workers


TEXTS = st.one_of(st.text(max_size=12), st.from_regex(r"[0-9.:eo_+-]{0,8}", fullmatch=True))
VALUES = st.one_of(
    *(st.none(), st.booleans(), st.integers(), st.floats(), TEXTS, st.binary(max_size=4)),
    *(st.lists(TEXTS, max_size=3), st.dictionaries(TEXTS, st.integers(), max_size=1)),
)


@given(st.sampled_from(NAMES), VALUES)
def test_any_value_is_accepted_or_refused_with_its_name(name, value):
    try:
        parsed = parse_setting(name, value, "here")
    except SetupError as error:
        message = str(error)
    else:
        message = f"here: {name} must be fine"
        # Not as text: a path may have a blank in it.
        plain = list(parsed) if isinstance(parsed, tuple) else written(name, parsed)
        assert parse_setting(name, plain, "here") == parsed
        assert not (isinstance(parsed, float) and not math.isfinite(parsed))
    assert message.startswith(f"here: {name} must be ")


def test_the_settings_without_effect_in_the_foreground_exist():
    assert set(FIELDS) >= WITHOUT_EFFECT
    assert without_effect(["bind", "workers", "scheme", "min_spare"]) == ["scheme", "min_spare"]
