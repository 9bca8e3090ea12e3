"""Which of several labels stands."""

from __future__ import annotations

import pytest

from fraud_contracts.standing_label import standing_label


@pytest.mark.parametrize(
    ("newest_first", "stands"),
    [
        ([(3, True)], 3),
        ([(3, True), (2, True), (1, True)], 1),
        ([(3, True), (2, True), (1, False)], 2),
        ([(3, False), (2, True), (1, False)], 3),
    ],
)
def test_the_first_of_the_newest_labels_that_agree_stands(
    newest_first: list[tuple[int, bool]], stands: int
) -> None:
    assert standing_label(newest_first, lambda label: label[1])[0] == stands
