"""GASM-CAST a second time, as plainly as it can be written: loops over videos, heads and nodes.

Every node lists whom it attends to and takes one softmax over that list. Nothing of the model is
used but its state dict and its settings, so what both agree on is what docs/model.md says.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tca.cache.layout import FeatureShapes
from tca.fusion.model.config import ModelConfig

Node = tuple[int, int]
"""Segment and patch."""

Nodes = dict[Node, Tensor]
Cells = tuple[int, int]
"""Of the head: each way for what changes, and for how much."""
"""What each node holds, (D,)."""


@dataclass
class Attended:
    """The graph of one layer for one video: for every node and head, whom it attends to and how."""

    inside: dict[tuple[Node, int], dict[Node, float]] = field(default_factory=dict)
    through_time: dict[tuple[Node, int], dict[Node, float]] = field(default_factory=dict)


class DenseReference:
    """Scores and graphs of GASM-CAST with these weights.

    Args:
        state: parameters and buffers by the names of the model's state dict.
        config: as the model's.
        shapes: of the store.
    """

    def __init__(
        self, state: Mapping[str, Tensor], config: ModelConfig, shapes: FeatureShapes
    ) -> None:
        self.state, self.config, self.shapes = state, config, shapes
        self.pooled = (shapes.grid[0] // config.pool, shapes.grid[1] // config.pool)
        self.graphs: list[dict[str, list[Attended]]] = []

    def scores(self, semantic: Tensor, motion: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return scores (B, classes), and those of every layer's own head; keeps the graphs."""
        self.graphs = []
        found = [
            self._video(
                semantic[number] if self.shapes.segments else semantic[number, None],
                motion[number],
            )
            for number in range(len(motion))
        ]
        of_layers = zip(*(layers for _, layers in found), strict=True)
        return torch.stack([last for last, _ in found]), [torch.stack(one) for one in of_layers]

    def _video(self, semantic: Tensor, motion: Tensor) -> tuple[Tensor, list[Tensor]]:
        patches = {
            (t, y * self.pooled[1] + x): self._placed("semantic", self._cell(semantic[t], y, x), at)
            for t in range(len(semantic))
            for y in range(self.pooled[0])
            for x in range(self.pooled[1])
            for at in [(t, y, x)]
        }
        steps = {
            (t, 0): self._placed("motion", motion[t], (t, 0, 0))
            for t in range(self.shapes.motion_segments)
        }
        self.graphs.append({"semantic": [], "motion": []})
        for layer in range(self.config.graph_layers):
            patches = self._graph_layer("semantic", layer, patches)
            steps = self._graph_layer("motion", layer, steps)
        states = []
        for layer in range(self.config.layers):
            patches, steps = self._bcast(layer, patches, steps)
            states.append((patches, steps))
        of_layers = [
            self._head(f"layer_heads.{layer}", (1, 1), *state)
            for layer, state in enumerate(states[:-1])
            if self.config.progressive
        ]
        cells = self.config.cells, self.config.energy_cells
        return self._head("head", cells, *states[-1]), of_layers

    # Stem

    def _cell(self, frame: Tensor, y: int, x: int) -> Tensor:
        pool, across = self.config.pool, self.shapes.grid[1]
        inside = [
            frame[(pool * y + down) * across + pool * x + right]
            for down in range(pool)
            for right in range(pool)
        ]
        return sum(inside) / len(inside)

    def _placed(self, stream: str, stored: Tensor, at: tuple[int, int, int]) -> Tensor:
        stem = f"stems.{stream}"
        token = (stored - self.state[f"{stem}.mean"]) / self.state[f"{stem}.deviation"]
        if f"{stem}.narrow.weight" in self.state:
            token = self._linear(f"{stem}.narrow", token)
        half = math.ceil(math.ceil(len(token) / 3) / 2)
        wave = []
        for number in range(len(token)):
            axis, place = number % 3, number // 3
            angle = at[axis] * 100.0 ** (-(place // 2) / half)
            wave.append(math.cos(angle) if place % 2 else math.sin(angle))
        return token + self.state[f"{stem}.positions.scale"] * torch.tensor(wave).to(token)

    # Graph attention

    def _graph_layer(self, stream: str, layer: int, nodes: Nodes) -> Nodes:
        where = f"graph_layers.{stream}.{layer}"
        heads = self.config.heads
        frames = (self.shapes.segments or 1) if stream == "semantic" else 1
        through_time = heads // 2 if frames > 1 else 0
        normed = {node: self._norm(token, f"{where}.norm") for node, token in nodes.items()}
        packed = {
            node: self._linear(f"{where}.query_key_value", token).view(3, heads, -1)
            for node, token in normed.items()
        }
        seen = Attended()
        self.graphs[-1][stream].append(seen)
        after = {}
        for node, token in nodes.items():
            taken = []
            for head in range(heads):
                if head < heads - through_time:
                    others = self._neighbours(stream, node, normed)
                    bias = [self._frame_bias(stream, where, head, node, other) for other in others]
                    record = seen.inside
                else:
                    others = [(t, node[1]) for t in range(frames)]
                    own = self.state[f"{where}.tube_bias"][head - heads + through_time]
                    lags = [t - node[0] + frames - 1 for t, _ in others]
                    bias = [own[lag] for lag in lags]
                    record = seen.through_time
                query = packed[node][0, head]
                keys = [packed[other][1, head] for other in others]
                share = _softmax([_score(query, k) + b for k, b in zip(keys, bias, strict=True)])
                taken.append(
                    sum(s * packed[other][2, head] for s, other in zip(share, others, strict=True))
                )
                record[node, head] = {
                    o: float(s.detach()) for o, s in zip(others, share, strict=True)
                }
            mixed = self._linear(f"{where}.out", torch.cat(taken))
            after[node] = token + self.state[f"{where}.gate.gate"] * mixed
        return after

    def _neighbours(self, stream: str, node: Node, normed: Nodes) -> list[Node]:
        """Return the grid or time neighbours of a node, and its look-alikes."""
        reach = self.config.radius if stream == "semantic" else self.config.window
        wanted = self.config.similar if stream == "semantic" else self.config.similar_segments
        there = [other for other in normed if stream == "motion" or other[0] == node[0]]
        near = [
            other
            for other in there
            if max(abs(step) for step in self._steps(stream, node, other)) <= reach
        ]
        by_cosine = sorted(
            (other for other in there if other != node),
            key=lambda other: (-_cosine(normed[node], normed[other]), other),
        )
        return [other for other in there if other in near or other in by_cosine[:wanted]]

    def _steps(self, stream: str, node: Node, other: Node) -> tuple[int, int]:
        if stream == "motion":
            return other[0] - node[0], 0
        across = self.pooled[1]
        return other[1] // across - node[1] // across, other[1] % across - node[1] % across

    def _frame_bias(self, stream: str, where: str, head: int, node: Node, other: Node) -> Tensor:
        down, right = self._steps(stream, node, other)
        bias = self.state[f"{where}.frame_bias"][head]
        middle = (bias.shape[0] // 2, bias.shape[1] // 2)
        return bias[middle[0] + down, middle[1] + right]

    # B-CAST

    def _bcast(self, layer: int, patches: Nodes, steps: Nodes) -> tuple[Nodes, Nodes]:
        sides = {"semantic": patches, "motion": steps}
        low = {}
        for stream, nodes in sides.items():
            down = f"layers.{layer}.{stream}.down"
            low[stream] = {
                node: self._linear(f"{down}.1", self._norm(token, f"{down}.0"))
                for node, token in nodes.items()
            }
        return (
            self._side(f"layers.{layer}.semantic", patches, low["semantic"], low["motion"]),
            self._side(f"layers.{layer}.motion", steps, low["motion"], low["semantic"]),
        )

    def _side(self, where: str, nodes: Nodes, low: Nodes, other: Nodes) -> Nodes:
        heads = self.config.heads
        others = []
        for token in other.values():
            normed = self._norm(token, f"{where}.cross.other_norm")
            others.append(self._linear(f"{where}.cross.key_value", normed).view(2, heads, -1))
        after = {}
        for node, token in nodes.items():
            narrow = low[node]
            normed = self._norm(narrow, f"{where}.cross.norm")
            query = self._linear(f"{where}.cross.query", normed).view(heads, -1)
            taken = []
            for head in range(heads):
                share = _softmax([_score(query[head], one[0, head]) for one in others])
                taken.append(sum(s * one[1, head] for s, one in zip(share, others, strict=True)))
            narrow = narrow + self._linear(f"{where}.cross.out", torch.cat(taken))
            if self.config.ratio:
                forward = f"{where}.feed_forward"
                wide = self._linear(f"{forward}.widen.1", self._norm(narrow, f"{forward}.widen.0"))
                narrow = narrow + self._linear(f"{forward}.narrow", _gelu(wide))
            up = self._linear(f"{where}.up", narrow)
            after[node] = token + self.state[f"{where}.gate.gate"] * up
        return after

    # Head

    def _head(self, where: str, cells: Cells, patches: Nodes, steps: Nodes) -> Tensor:
        vector = torch.cat(
            [
                self._readout(f"{where}.readouts.semantic", patches, self.pooled, cells),
                self._readout(f"{where}.readouts.motion", steps, (1, 1), cells),
            ]
        )
        return self._linear(f"{where}.classify", self._norm(vector))

    def _readout(self, where: str, nodes: Nodes, grid: tuple[int, int], both: Cells) -> Tensor:
        cells, finer = both
        times = 1 + max(t for t, _ in nodes)
        rows, columns = (_ranges(side, min(cells, side)) for side in grid)
        held = {}  # u_tc
        for t in range(times):
            for number, (row, column) in enumerate((r, c) for r in rows for c in columns):
                inside = [nodes[t, y * grid[1] + x] for y in row for x in column]
                held[t, number] = sum(inside) / len(inside)
        count = len(rows) * len(columns)
        average = [sum(held[t, c] for t in range(times)) / times for c in range(count)]
        static = [self.state[f"{where}.static.weight"] @ average[c] for c in range(count)]
        if times == 1:
            return torch.cat(static)
        change = [
            self.state[f"{where}.change.weight"] @ (held[t, c] - average[c])
            for t in range(times)
            for c in range(count)
        ]
        return torch.cat([*static, *change, *self._energy(nodes, grid, finer)])

    def _energy(self, nodes: Nodes, grid: tuple[int, int], cells: int) -> list[Tensor]:
        times = 1 + max(t for t, _ in nodes)
        patches = range(grid[0] * grid[1])
        mean = [sum(nodes[t, p] for t in range(times)) / times for p in patches]
        told = []
        for change, since in (
            (lambda t, p: nodes[t, p] - mean[p], 0),
            (lambda t, p: nodes[t, p] - nodes[t - 1, p], 1),
        ):
            energy = {
                t: self._in_cells([change(t, p).square().mean() for p in patches], grid, cells)
                for t in range(since, times)
            }
            amplitudes = [one.sqrt() for t in energy for one in energy[t]]
            usual = sum(amplitudes) / len(amplitudes)
            told.append(torch.stack([20 * (one / usual - 1) for one in amplitudes]))
            if len(energy[since]) > 1:
                shares = [
                    10 * (one / (sum(energy[t]) / len(energy[t])) - 1)
                    for t in energy
                    for one in energy[t]
                ]
                told.append(torch.stack(shares))
        return told

    @staticmethod
    def _in_cells(numbers: list[Tensor], grid: tuple[int, int], cells: int) -> list[Tensor]:
        rows, columns = (_ranges(side, min(cells, side)) for side in grid)
        inside = ([numbers[y * grid[1] + x] for y in r for x in c] for r in rows for c in columns)
        return [sum(some) / len(some) + 1e-6 for some in inside]

    # Of everything

    def _linear(self, where: str, token: Tensor) -> Tensor:
        return self.state[f"{where}.weight"] @ token + self.state[f"{where}.bias"]

    def _norm(self, token: Tensor, where: str | None = None) -> Tensor:
        centred = token - token.mean()
        normed = centred / (centred.square().mean() + 1e-5).sqrt()
        if where is None:
            return normed
        return normed * self.state[f"{where}.weight"] + self.state[f"{where}.bias"]


def _score(query: Tensor, key: Tensor) -> Tensor:
    return (query * key).sum() / math.sqrt(len(query))


def _softmax(scores: Sequence[Tensor]) -> list[Tensor]:
    highest = max(float(score.detach()) for score in scores)
    powers = [(score - highest).exp() for score in scores]
    total = sum(powers)
    return [power / total for power in powers]


def _cosine(one: Tensor, other: Tensor) -> float:
    one, other = one.detach(), other.detach()
    return float((one * other).sum() / (one.square().sum() * other.square().sum()).sqrt())


def _gelu(wide: Tensor) -> Tensor:
    return wide * 0.5 * (1 + torch.special.erf(wide / math.sqrt(2)))


def _ranges(side: int, cells: int) -> list[range]:
    """Return the places of each of `cells` cells along a side; where it does not divide, shared."""
    return [
        range(number * side // cells, -(-(number + 1) * side // cells)) for number in range(cells)
    ]
