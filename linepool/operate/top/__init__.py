"""``linepool top``: a running server at a glance, in a terminal.

A look (``looks``) is what the server says at one moment; ``history`` has those of the last minutes, and makes
a view of them. ``layout`` turns a view into lines that fit a terminal: pure, so tests can read them.
``live`` shows them again and again.
"""
