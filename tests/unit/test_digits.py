"""Whole numbers in what comes from outside."""

import pytest

from linepool import SetupError
from linepool.client.core import json_value
from linepool.digits import is_whole
from linepool.kernel.privileges import identity_of

MANY = "9" * 5000


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        *[("0", True), ("0042", True), ("9" * 10, True), ("9" * 11, False), (MANY, False)],
        *[("", False), ("-1", False), ("+1", False), (" 1", False), ("1_0", False)],
        *[("\N{ARABIC-INDIC DIGIT ONE}", False), ("\N{SUPERSCRIPT TWO}", False)],
    ],
)
def test_a_whole_number_has_plain_digits_and_not_too_many(text, is_one):
    assert is_whole(text) is is_one
    assert is_whole(text.encode()) is is_one


def test_a_user_of_too_many_digits_does_not_exist():
    with pytest.raises(SetupError, match="does not exist"):
        identity_of(MANY, "")


def test_a_client_takes_numbers_of_any_size_that_json_has():
    assert json_value(b"9" * 400) == int("9" * 400)
