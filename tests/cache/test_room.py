"""Sizes as a person reads them."""

import pytest

from tca.cache.room import size_words


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (999_499, "999 kB"),
        (999_500, "1 MB"),
        (1_234_567, "1.23 MB"),
        (20_400_000_000, "20.4 GB"),
        (3.5e12, "3.5 TB"),
        (4e16, "40000 TB"),
    ],
)
def test_three_digits_and_a_unit(size: float, words: str) -> None:
    assert size_words(size) == words
