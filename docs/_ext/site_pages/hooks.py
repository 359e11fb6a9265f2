"""What the site adds to Sphinx: links to public names, and docstrings as they are meant."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.typing import ExtensionMetadata

from linepool.settings import FIELDS
from site_pages.api import TOPICS

_COLON = "\ue000"  # of no text
_LONG_NAME = re.compile(r"~(?:\w+\.)*~?(\w+)")
_HOMES = {
    name.rpartition(".")[2]: f"linepool.{name}" for topic in TOPICS.values() for name in topic.names
}


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register what this extension does."""
    app.connect("missing-reference", _by_home)
    app.connect("autodoc-process-docstring", _hide_colons, priority=400)  # before napoleon's 500
    app.connect("autodoc-process-docstring", _show_colons, priority=600)
    app.connect("doctree-read", _shorten)
    app.connect("doctree-read", _note_settings)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


def _by_home(
    app: Sphinx, env: BuildEnvironment, node: addnodes.pending_xref, shown: nodes.TextElement
) -> Any:
    """Find a public name by another module's path, as ``linepool.app.App``, or without one."""
    path, _, last = str(node.get("reftarget", "")).rpartition(".")
    home = _HOMES.get(last)
    if (
        node.get("refdomain") != "py"
        or home is None
        or not (path or "linepool").startswith("linepool")
    ):
        return None
    domain = env.domains.python_domain
    return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", home, node, shown)


def _hide_colons(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    """Hide colons from napoleon, which takes what is before one for an attribute's type."""
    if what in ("attribute", "property", "data"):
        lines[:] = [line.replace(":", _COLON) for line in lines]


def _show_colons(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    lines[:] = [line.replace(_COLON, ":") for line in lines]


def _shorten(app: Sphinx, tree: nodes.document) -> None:
    """Shorten the names of types in signatures that Sphinx cannot take apart, those with a ParamSpec."""
    for signature in tree.findall(addnodes.desc_signature):
        for text in list(signature.findall(nodes.Text)):
            if "~" in text:
                text.parent.replace(text, nodes.Text(_LONG_NAME.sub(r"\1", text)))


def _note_settings(app: Sphinx, tree: nodes.document) -> None:
    """Make the settings things that a search finds by their names."""
    if app.env.docname == "settings":
        for name in FIELDS:
            app.env.domains.standard_domain.note_object("confval", name, name)
