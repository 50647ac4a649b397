"""The twelve templates and how each moves a scene through time.

A class changes nothing but the way from before to after. Its motion is 0 in the middle of the clip,
where every class shows the scene as it was drawn; so the middle frame tells nothing of the class,
and of two templates that are each other's reversal the frames, without their order, tell nothing
either.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Thing:
    """Where an object is seen.

    Attributes:
        x: of its middle, -1 left to 1 right edge of the frame.
        y: of its middle, -1 top to 1 bottom.
        size: its radius in frame heights.
        angle: in radians.
    """

    x: float
    y: float
    size: float
    angle: float


@dataclass(frozen=True)
class State:
    """What one frame shows: a mover, another object, a camera.

    Attributes:
        mover: the object that most classes move.
        other: the object that is there too.
        zoom: how much nearer the camera is than in the middle of the clip.
    """

    mover: Thing
    other: Thing
    zoom: float = 1.0


Motion = Callable[[State, float, float], State]
"""(state in the middle of the clip, progress -1 to 1, reach about 1) -> state."""


def _moved(
    thing: Thing, x: float = 0.0, y: float = 0.0, grow: float = 1.0, turn: float = 0.0
) -> Thing:
    return Thing(thing.x + x, thing.y + y, thing.size * grow, thing.angle + turn)


def _sideways(sign: int) -> Motion:
    def motion(middle: State, progress: float, reach: float) -> State:
        return State(_moved(middle.mover, x=sign * 0.62 * reach * progress), middle.other)

    return motion


def _vertically(sign: int) -> Motion:
    def motion(middle: State, progress: float, reach: float) -> State:
        return State(_moved(middle.mover, y=sign * 0.62 * reach * progress), middle.other)

    return motion


def _in_depth(sign: int) -> Motion:
    def motion(middle: State, progress: float, reach: float) -> State:
        grow = 2.0 ** (sign * 0.9 * reach * progress)
        return State(_moved(middle.mover, grow=grow), middle.other)

    return motion


def _between(sign: int) -> Motion:
    def motion(middle: State, progress: float, reach: float) -> State:
        a, b = middle.mover, middle.other
        step = sign * 0.4 * reach * progress
        x, y = step * (b.x - a.x), step * (b.y - a.y)
        return State(_moved(a, x=x, y=y), _moved(b, x=-x, y=-y))

    return motion


def _camera(sign: int) -> Motion:
    def motion(middle: State, progress: float, reach: float) -> State:
        return State(middle.mover, middle.other, 2.0 ** (sign * 0.6 * reach * progress))

    return motion


def _throw(middle: State, progress: float, reach: float) -> State:
    return State(_moved(middle.mover, y=1.0 * reach * progress**2, turn=2 * progress), middle.other)


def _feather(middle: State, progress: float, reach: float) -> State:
    swing = np.sin(1.5 * np.pi * progress)
    mover = _moved(middle.mover, x=0.5 * reach * swing, y=0.62 * reach * progress, turn=0.5 * swing)
    return State(mover, middle.other)


TEMPLATES: dict[str, Motion] = {
    "Pushing [something] from left to right": _sideways(1),
    "Pushing [something] from right to left": _sideways(-1),
    "Moving [something] up": _vertically(-1),
    "Moving [something] down": _vertically(1),
    "Moving [something] towards the camera": _in_depth(1),
    "Moving [something] away from the camera": _in_depth(-1),
    "Moving [something] and [something] closer to each other": _between(1),
    "Moving [something] and [something] away from each other": _between(-1),
    "Approaching [something] with your camera": _camera(1),
    "Moving away from [something] with your camera": _camera(-1),
    "Throwing [something] in the air and catching it": _throw,
    "[Something] falling like a feather or paper": _feather,
}
"""SSv2's own templates; the first ten are five pairs that differ in the order of frames alone."""


def class_name(template: str) -> str:
    """Return a template without brackets, as `labels.json` spells it."""
    return template.replace("[", "").replace("]", "")


PAIRS = tuple(
    (class_name(first), class_name(second))
    for first, second in zip(list(TEMPLATES)[:10:2], list(TEMPLATES)[1:10:2], strict=True)
)
"""Class names of the five pairs."""
