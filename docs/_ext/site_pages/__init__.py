"""The documentation site: its pages are those of docs/ and of the examples, and pages made from the code.

``python -m site_pages`` builds it, as ``./dev docs`` does. Only ``hooks`` needs Sphinx.
"""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
"""Of the repository."""
