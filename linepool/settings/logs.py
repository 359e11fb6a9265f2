"""Settings: what is logged, and where to. Pure."""

from __future__ import annotations

from attrs import frozen

from linepool.settings import access, syntax
from linepool.settings.field import setting


@frozen(kw_only=True, slots=False)
class LogSettings:
    """What the log shows, and where it goes."""

    log_file: str = setting(
        "",
        syntax.path,
        "path",
        "file to append the log to, opened anew on the signal USR1; empty: standard error",
    )
    log_format: str = setting(
        "text",
        syntax.one_of("text", "json"),
        "",
        "form of the log's lines; text: for people; json: one JSON object a line, with the facts of the event"
        " as members",
    )
    log_config: str = setting(
        "",
        syntax.path,
        "path",
        "file for logging.config.dictConfig, FILE.toml or FILE.json: where the log goes instead; empty: none",
        is_early=True,
    )
    log_level: str = setting(
        "info", syntax.one_of("debug", "info", "warning", "error"), "", "minimum log level"
    )
    log_limit: int = setting(
        6,
        syntax.whole(0, 10000),
        "lines/min",
        "maximum lines of one kind of warning or error, on the whole server, and a tenth of those of other"
        " events; what is left out is counted; 0: no limit",
    )
    log_requests: str = setting(
        "command", syntax.one_of("command", "line"), "", "what the log shows of a request"
    )
    access_log: str = setting(
        "off",
        syntax.switched_path,
        "path",
        "file to which a line for each request is appended, opened anew as log_file; -: standard output; off",
    )
    access_log_format: str = setting(
        access.DEFAULT,
        syntax.access_format,
        "",
        "form of these lines; json: one JSON object a line; or a text with fields in braces",
    )
