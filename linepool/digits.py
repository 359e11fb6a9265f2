"""Whole numbers in what comes from outside. Pure."""

from __future__ import annotations


def is_whole(text: str | bytes, most: int = 10) -> bool:
    """Whether a text is a whole number of at most ``most`` digits, from 0 to 9, without a sign.

    int() takes those of other scripts too, and of more than 4,300 digits it makes a ValueError.
    """
    return text.isascii() and text.isdigit() and len(text) <= most
