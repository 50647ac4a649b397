"""How evenly a split's videos are spread over the classes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Balance:
    """Label coverage and balance of some videos.

    Attributes:
        videos: how many there are, of those with a label.
        classes: classes there are.
        covered: classes with a video.
        most: the class with the most videos, and how many.
        least: the class with the fewest videos, of those that have any, and how many.
        ratio: most over least; 1 if all are equal.
        majority: share of the most frequent class: what always naming it would score.
        evenness: entropy of the classes' shares over its largest value, log of `classes`: 1 if
            all have as many videos, 0 if one has all.
        effective: exp(entropy): so many classes with as many videos each would be as diverse.
    """

    videos: int
    classes: int
    covered: int
    most: tuple[str, int]
    least: tuple[str, int]
    ratio: float
    majority: float
    evenness: float
    effective: float


def balance(counts: Mapping[str, int]) -> Balance | None:
    """Return the balance of `counts`, videos by class; None without a video."""
    total = sum(counts.values())
    if not total:
        return None
    present = {name: count for name, count in counts.items() if count}
    # The first in the order of labels where several are equal.
    most = max(present, key=lambda name: present[name])
    least = min(present, key=lambda name: present[name])
    shares = [count / total for count in present.values()]
    entropy = sum(share * -math.log(share) for share in shares)
    return Balance(
        videos=total,
        classes=len(counts),
        covered=len(present),
        most=(most, present[most]),
        least=(least, present[least]),
        ratio=present[most] / present[least],
        majority=present[most] / total,
        evenness=entropy / math.log(len(counts)) if len(counts) > 1 else 1.0,
        effective=math.exp(entropy),
    )
