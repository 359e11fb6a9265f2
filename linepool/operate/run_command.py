"""The command ``linepool run``, and ``linepool.run()`` of a script: serve an app."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from linepool.app import App
from linepool.apps import Apps
from linepool.errors import SetupError
from linepool.kernel.program import Program
from linepool.kernel.standard import fill_standard_descriptors
from linepool.operate import before_load, check_command, env_file, logs, target, targets
from linepool.operate.certificates import Certificates
from linepool.operate.config import Given, files_of, option_name
from linepool.operate.loading import Source, tell_master
from linepool.operate.log_config import apply as apply_log_config
from linepool.operate.options import add_settings, given
from linepool.operate.parser import EXIT_FAILURE, EXIT_USAGE, Parser, hint, parse
from linepool.operate.serve import serve
from linepool.operate.supervision import Supervision, claim
from linepool.settings import FIELDS, IN_FOREGROUND, Settings
from linepool.settings.listeners import ListenerTable

Tables = Sequence[ListenerTable]
Load = Callable[[Given], tuple[Apps, Tables]]

log = logging.getLogger("linepool")

_NEARLY = 0.8  # similarity of an unknown option to a known one that makes it a mistake


def add_to(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the command to the command line."""
    run = commands.add_parser(
        "run",
        description="Serve the handlers of a Python file or module.",
        epilog="examples:\n  linepool run sums.py -b 127.0.0.1:7000 -w 4\n"
        "  linepool run shop.stock:app -c stock.toml -b unix:/run/stock.sock\n"
        "  linepool run shop:main@0.0.0.0:7000 shop:admin@unix:/run/shop-admin.sock",
    )
    run.add_argument(
        "target",
        metavar="TARGET",
        nargs="*",
        help="FILE.py, a package, MODULE or MODULE:APP, with @ADDRESS behind it if it is to be served there;"
        " several are served by the same workers; none: what linepool.toml names, as target = 'TARGET'",
    )
    add_settings(run)
    run.set_defaults(run=_run, parser=run)


def run_script(
    given_apps: Sequence[App], settings: Mapping[str, Any], arguments: Sequence[str] | None
) -> int:
    """Serve apps from their own script; for the arguments, see ``linepool.run``."""
    fill_standard_descriptors()
    supervision = claim(os.environ)
    try:
        target.refuse_while_loading()
        chosen = given_apps or [target.find(sys.modules["__main__"], sys.argv[0])]
        chosen[0].settings = {**chosen[0].settings, **settings}
        if len(chosen) > 1:
            targets.name_by_variable(chosen)
        elif not chosen[0].name:
            chosen[0].name = os.path.splitext(os.path.basename(sys.argv[0]))[0]
        apps = Apps(chosen)
        parser = Parser(
            prog=sys.argv[0],
            description="Serve the handlers of this script.",
            leaves_others=arguments is None,
        )
        add_settings(parser)
        if arguments is not None:
            options = parse(parser, arguments)
            others: list[str] = []
        else:
            options, others = parser.parse_known_args(sys.argv[1:])

        def load(outside: Given) -> tuple[Apps, Tables]:
            return apps, targets.named(apps, outside.tables)

        return _serve(sys.argv[0], load, options, supervision, others, script=apps)
    except SetupError as error:
        if target.is_loading():
            raise
        return _failed(error)


def _failed(error: SetupError) -> int:
    """Show an error where it is read: by the user, or by the master that has started this process."""
    if not tell_master(error):
        logs.show_failure(str(error))
    return EXIT_USAGE if error.is_usage else EXIT_FAILURE


def _run(options: argparse.Namespace) -> int:
    supervision = claim(os.environ)  # before the app's code runs: it may start other programs
    try:
        words = targets.words_of(options.target)

        def load(outside: Given) -> tuple[Apps, Tables]:
            return targets.load(words or targets.words_of(outside.targets), outside.tables)

        return _serve(_name(words), load, options, supervision)
    except SetupError as error:
        return _failed(error)


def _name(words: Sequence[targets.Word]) -> str:
    """Return what is served, in one line."""
    return " ".join(dict.fromkeys(word.target for word in words))


def _serve(
    name: str,
    load: Load,
    options: argparse.Namespace,
    supervision: Supervision,
    others: Sequence[str] = (),
    *,
    script: Apps | None = None,
) -> int:
    """Serve apps.

    Args:
        name: Of the targets or the script; "": the file says what is served.
        load: Given what the file says, returns the apps, and its tables with the names of their apps; called
            in the loader.
        options: The options of the command line.
        supervision: How this process is supervised.
        others: Arguments that are left to the script.
        script: The apps, if they are those of this script, which is running already.
    """
    program = Program.of_this_process()
    outside = given(options, supervision)
    process = outside.process_settings()
    logs.begin(outside.value("log_format"))
    log_config = outside.value("log_config")
    files = [*files_of(options.config), *map(os.path.abspath, options.env_file)]
    identity = before_load.enter(process)

    certificates = Certificates()

    def load_all() -> tuple[Apps, Settings]:
        if identity is not None:
            certificates.read(outside)
        before_load.become(identity, process)
        env_file.add_to(os.environ, outside.variables)
        apply_log_config(log_config)
        apps, tables = load(outside)
        outside.fill(apps)
        configuration = outside.configuration(apps, tables)
        logs.set_up(configuration.settings)
        for warning in check_command.warnings(apps, configuration):
            log.warning("%s", warning)
        for option in others:
            if near := hint(option, map(option_name, FIELDS), _NEARLY):
                log.warning("option %s is left to the script%s", option.partition("=")[0], near)
        if script is not None and identity is not None:
            log.warning(
                "the script has run as root so far: 'linepool run' loads it as %s", process.user
            )
        return apps, configuration.settings

    in_foreground = outside.value("workers", script.all if script else ()) == IN_FOREGROUND
    fixed = outside.fixed()
    return serve(
        Source(
            name or _name(targets.words_of(outside.targets)),
            load_all,
            process,
            identity,
            fixed,
            supervision,
            program,
            files,
            in_foreground,
            certificates,
        )
    )
