"""From a scene and an action to frames: a textured background, two objects with soft shadows."""

from __future__ import annotations

from typing import Any

import numpy as np

from tca.demo.motions import Motion, Thing
from tca.demo.scenes import Look, Scene
from tca.demo.textures import colour, pattern

Frame = np.ndarray[Any, Any]
"""uint8 (height, width, 4)."""

HEIGHT = 240
SPRITE = 208
"""Pixels along a painted object with its shadow; only the nearest are shown larger."""
MARGIN = 1.3
"""A sprite's half side in radii of its object: room for the shadow and for pointed outlines."""
CANVAS = 1.65
"""Background over frame size: what a camera moving away brings into view."""


def paint(scene: Scene, motion: Motion) -> list[Frame]:
    """Return the frames (240, width, 4) of one clip, RGB and an unused byte."""
    ground = _surface(scene.looks[2], int(HEIGHT * CANVAS), int(scene.width * CANVAS))
    sprites = [_sprite(scene.looks[n], scene.shapes[n], scene.light) for n in range(2)]
    frames: list[Frame] = []
    still: tuple[float, Frame] | None = None
    for number in range(scene.frames):
        state = motion(scene.middle, scene.progress(number), scene.reach)
        if still is None or still[0] != state.zoom:
            still = state.zoom, _background(ground, scene.width, state.zoom)
        frame = still[1].copy()
        objects = [(state.other, sprites[1]), (state.mover, sprites[0])]
        for thing, sprite in objects if scene.mover_in_front else reversed(objects):
            _put(frame, thing, sprite, state.zoom)
        frames.append(frame)
    return frames


def _surface(look: Look, height: int, width: int) -> Frame:
    """Return (height, width, 4)."""
    generator = np.random.default_rng(look.seed)
    mix = pattern(look.family, generator, height, width, look.step)
    # 256 shades between the two colours are all that bytes can show.
    first, second = (255 * colour(*part) for part in look.colours)
    shades = np.linspace(0, 1, 256, dtype=np.float32)[:, None]
    table = np.zeros((256, 4), dtype=np.uint8)
    table[:, :3] = first * shades + second * (1 - shades)
    return _look_up(table, (255 * mix).astype(np.uint8))


def _look_up(picture: Frame, places: Any) -> Frame:
    """Return the pixels (..., 4) at flat `places` (...) of a picture, each moved as one word."""
    found = picture.reshape(-1).view(np.uint32).take(places)
    pixels: Frame = found.view(np.uint8).reshape(*places.shape, 4)
    return pixels


def _background(ground: Frame, width: int, zoom: float) -> Frame:
    """Cut the visible part out of the canvas, nearest pixels."""
    places = []
    for size, whole in ((HEIGHT, ground.shape[0]), (width, ground.shape[1])):
        place = (np.arange(size) + 0.5 - size / 2) / zoom + whole / 2
        places.append(np.clip(place.astype(np.int32), 0, whole - 1))
    flat = places[0][:, None] * np.int32(ground.shape[1]) + places[1]
    return _look_up(ground, flat)


def _sprite(look: Look, shape: str, light: float) -> Frame:
    """Return (SPRITE, SPRITE, 4): colours multiplied by opacity, and opacity."""
    side = MARGIN * np.linspace(-1, 1, SPRITE, dtype=np.float32)
    x, y = side[None, :], side[:, None]
    cos, sin = np.float32(np.cos(light)), np.float32(np.sin(light))
    inside = _cover(shape, x, y)
    shadow = 0.45 * _cover(shape, x - 0.12 * cos, y - 0.12 * sin, soft=5.0)
    # Surfaces are brighter towards the light.
    shade = np.clip(0.95 - 0.25 * (cos * x + sin * y), 0.5, 1.1) * inside
    sprite: Frame = _surface(look, SPRITE, SPRITE) * shade[:, :, None]
    sprite[:, :, 3] = 255 * (inside + (1 - inside) * shadow)
    sprite[[0, -1]] = 0
    sprite[:, [0, -1]] = 0
    return np.clip(sprite, 0, 255).astype("u1")


def _cover(shape: str, x: Any, y: Any, soft: float = 30.0) -> Any:
    """Return opacity of an outline of radius about 1; its edge is 1/`soft` wide."""
    if shape == "box":
        distance = np.sqrt(np.sqrt(x**4 + y**4)) / np.float32(0.85)
    elif shape == "disc":
        distance = np.hypot(x, y)
    elif shape == "lozenge":
        distance = np.abs(x) / np.float32(0.85) + np.abs(y) / np.float32(1.1)
    else:
        distance = np.hypot(x, y) / (0.9 + 0.16 * np.cos(5 * np.arctan2(y, x)))
    return np.clip(0.5 + soft * (1 - distance) / 2, 0, 1).astype(np.float32)


def _put(frame: Frame, thing: Thing, sprite: Frame, zoom: float) -> None:
    """Draw a sprite into the frame, turned and sized, nearest pixels."""
    height, width = frame.shape[:2]
    middle_x = width * (0.5 + 0.5 * thing.x * zoom)
    middle_y = height * (0.5 + 0.5 * thing.y * zoom)
    radius = thing.size * zoom * height * MARGIN
    left, right = max(0, int(middle_x - radius)), min(width, int(middle_x + radius) + 1)
    top, bottom = max(0, int(middle_y - radius)), min(height, int(middle_y + radius) + 1)
    if left >= right or top >= bottom:
        return
    scale = (SPRITE / 2) / radius
    cos, sin = np.float32(np.cos(thing.angle) * scale), np.float32(np.sin(thing.angle) * scale)
    x = np.arange(left, right, dtype=np.float32) + np.float32(0.5 - middle_x)
    y = (np.arange(top, bottom, dtype=np.float32) + np.float32(0.5 - middle_y))[:, None]
    half = np.float32(SPRITE / 2)
    column = np.clip(x * cos + (y * sin + half), 0, SPRITE - 1).astype(np.int32)
    row = np.clip(x * -sin + (y * cos + half), 0, SPRITE - 1).astype(np.int32)
    row *= SPRITE
    row += column  # outside the sprite: its border, which is transparent
    seen = _look_up(sprite, row)
    part = frame[top:bottom, left:right]
    rest = part * (255 - seen[:, :, 3:]).astype(np.uint16)
    rest >>= 8
    np.add(seen, rest, out=part, casting="unsafe")
