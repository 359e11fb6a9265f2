"""The version of linepool."""

__version__ = "0.1.0"
