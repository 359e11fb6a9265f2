"""The documentation site; ``./dev docs`` builds it."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

from linepool.version import __version__ as release

project = "linepool"
copyright = "the authors of linepool, MIT license"
html_title = f"linepool {release}"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "site_pages.hooks"]
exclude_patterns = ["_*"]
language = "en"
suppress_warnings = ["misc.highlighting_failure"]  # dialogues and logs are of no language
smartquotes = False  # what is quoted is typed
nitpicky = True
nitpick_ignore_regex = [
    ("py:.*", r"(?!linepool\.).*"),  # Python's own, and type variables
    ("py:.*", r"linepool\.[\w.]*\b[a-z]\w*\.\w+"),  # not public, or a type of one
]

myst_enable_extensions = ["attrs_inline", "html_image"]
myst_heading_anchors = 6
highlight_language = "text"

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autoclass_content = "both"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
napoleon_use_ivar = True
napoleon_numpy_docstring = False
add_module_names = False

html_theme = "furo"
html_static_path = [str(Path(__file__).parent / "_static")]
html_favicon = str(Path(__file__).parent / "_static" / "icon.svg")
html_css_files = ["site.css"]
html_search_scorer = str(Path(__file__).parents[1] / "build" / "docs" / "source" / "_scorer.js")
html_show_sourcelink = False
html_copy_source = False
html_show_sphinx = False
html_theme_options = {
    "navigation_with_keys": False,
    "light_css_variables": {"color-brand-primary": "#0b6b53", "color-brand-content": "#0b6b53"},
    "dark_css_variables": {"color-brand-primary": "#5fd3b0", "color-brand-content": "#5fd3b0"},
}
