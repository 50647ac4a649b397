"""What a clip shows apart from its action, drawn without knowing the class.

Everything that could give the class away by looks or place is drawn here, before a class is given:
textures, shapes, colours, sizes, places, lengths, speeds, the background. Train and validation draw
from random streams and families of their own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tca.demo.motions import State, Thing
from tca.demo.textures import FAMILIES

SPLIT_NUMBERS = {"train": 0, "validation": 1}
SHAPES = {"train": ("box", "disc"), "validation": ("lozenge", "flower")}
"""By split, as texture families are."""

WIDTHS = (320, 400, 426, 427)
"""Frame widths that SSv2 has, at a height of 240."""


@dataclass(frozen=True)
class Look:
    """A surface: `seed` makes the pattern, the rest is its family, scale and two colours (HSV)."""

    family: str
    step: float
    colours: tuple[tuple[float, float, float], tuple[float, float, float]]
    seed: int


@dataclass(frozen=True)
class Scene:
    """One clip without its action.

    Attributes:
        width: of the frame in pixels; the height is 240.
        frames: length of the clip at 12 frames a second.
        middle: what is seen half-way through.
        looks: surfaces of mover, other object and background.
        shapes: outlines of mover and other object.
        mover_in_front: which object hides the other.
        light: direction from which shadows fall, radians.
        holds: stillness before and after the action, as shares of the clip.
        ease: 0 for a steady speed, 1 for a soft start and stop.
        reach: how far the action goes, about 1.
    """

    width: int
    frames: int
    middle: State
    looks: tuple[Look, Look, Look]
    shapes: tuple[str, str]
    mover_in_front: bool
    light: float
    holds: tuple[float, float]
    ease: float
    reach: float

    def progress(self, frame: int) -> float:
        """Return how far the action is at a frame: -1 before, 0 in the middle, 1 after."""
        place = 2 * (frame + 0.5) / self.frames - 1
        hold = self.holds[0] if place < 0 else self.holds[1]
        steady = float(np.clip(place / (1 - 2 * hold), -1, 1))
        return (1 - self.ease) * steady + self.ease * float(np.sin(0.5 * np.pi * steady))


def draw_scene(split: str, generator: np.random.Generator) -> Scene:
    """Draw everything but the action."""
    angle = generator.uniform(-0.5, 0.5)
    side = generator.choice([-1.0, 1.0])
    gap = generator.uniform(0.32, 0.46)
    x, y = side * gap * np.cos(angle), gap * np.sin(angle)
    shift = generator.uniform(-0.12, 0.12, 4)
    dark = bool(generator.random() < 0.5)
    middle = State(
        mover=_thing(generator, x + shift[0], y + shift[1]),
        other=_thing(generator, -x + shift[2], -y + shift[3]),
    )
    objects = [_look(split, generator, generator.uniform(8, 22), dark) for _ in range(2)]
    ground = _look(split, generator, generator.uniform(25, 70), not dark, calm=True)
    return Scene(
        width=int(generator.choice(WIDTHS)),
        frames=int(generator.integers(24, 41)),
        middle=middle,
        looks=(objects[0], objects[1], ground),
        shapes=(
            str(generator.choice(SHAPES[split])),
            str(generator.choice(SHAPES[split])),
        ),
        mover_in_front=bool(generator.random() < 0.5),
        light=float(generator.uniform(0, 2 * np.pi)),
        holds=(float(generator.uniform(0, 0.12)), float(generator.uniform(0, 0.12))),
        ease=float(generator.uniform(0, 1)),
        reach=float(generator.uniform(0.85, 1.15)),
    )


def _thing(generator: np.random.Generator, x: float, y: float) -> Thing:
    return Thing(
        float(x),
        float(y),
        float(generator.uniform(0.15, 0.21)),
        float(generator.uniform(0, 2 * np.pi)),
    )


def _look(
    split: str, generator: np.random.Generator, step: float, dark: bool, calm: bool = False
) -> Look:
    """Draw a surface; `calm` surfaces have two similar colours."""
    hue = generator.random()
    low, high = (0.12, 0.45) if dark else (0.6, 0.95)
    value = generator.uniform(low, high)
    change = generator.uniform(0.04, 0.1) if calm else generator.uniform(0.2, 0.4)
    other = value + change if value + change < 1 and dark else value - change
    saturation = generator.uniform(0.1, 0.45) if calm else generator.uniform(0.4, 0.9)
    first = (float(hue), float(saturation), float(value))
    second = (
        float(hue + generator.uniform(-0.15, 0.15)),
        float(saturation),
        float(max(other, 0.05)),
    )
    return Look(
        family=str(generator.choice(list(FAMILIES[split]))),
        step=float(step),
        colours=(first, second),
        seed=int(generator.integers(2**31)),
    )
