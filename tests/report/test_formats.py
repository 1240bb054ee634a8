"""Numbers for people."""

import pytest

from mnist_jax.report import formats


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (formats.percent(0.98765), "98.77%"),
        (formats.percent(0.99999), ">99.99%"),
        (formats.percent(1.0), "100.00%"),
        (formats.percent(1 - 1e-9, 1), ">99.9%"),
        (formats.count(421642), "421,642"),
        (formats.loss(0.0312345), "0.03123"),
        (formats.duration(0.4211), "0.42 s"),
        (formats.duration(59.96), "1 min 0 s"),
        (formats.duration(93.2), "1 min 33 s"),
        (formats.duration(3599.9), "1 h 0 min"),
        (formats.duration(7510), "2 h 5 min"),
        (formats.memory(812_345_678), "812 MB"),
        (formats.memory(2.5e9), "2.50 GB"),
        (formats.score(0.98765, "macro_f1"), "98.77%"),
        (formats.score(31.4159, "psnr"), "31.42 dB"),
        (formats.score(None, "psnr"), "–"),
        (formats.difference(0.0123), "+1.23"),
        (formats.difference(-0.5, "psnr"), "-0.50"),
        (formats.difference(None), "–"),
        (formats.percent(float("nan")) + formats.duration(None) + formats.memory(None), "–––"),
    ],
)
def test_numbers_are_for_people(shown, expected):
    assert shown == expected
