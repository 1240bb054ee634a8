"""Names that can be printed."""

import pytest

from mnist_jax.types import printable


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("drei ü 三.png", "drei ü 三.png"),
        ("Screenshot at 9.41\u202fAM.png", "Screenshot at 9.41\u202fAM.png"),  # macOS
        ("a\x1b[31mb\n", "a\ufffd[31mb\ufffd"),
        ("\u202efdp.exe", "\ufffdfdp.exe"),  # would be shown from right to left
        ("\udcff.csv", "\ufffd.csv"),  # a byte that is not UTF-8
    ],
)
def test_control_characters_are_replaced(name, expected):
    assert printable(name) == expected
