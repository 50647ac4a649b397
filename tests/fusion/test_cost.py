"""What is counted, held against formulas written out here and against torch's own measuring."""

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from tca.cache.layout import FeatureShapes
from tca.errors import UsageError
from tca.fusion.model.config import ModelConfig
from tca.fusion.model.cost import PartCost, hollow, model_cost, random_rows
from tca.fusion.model.registry import OWN, build, parameters
from tca.fusion.model.variant import Tokens, Variant
from tca.fusion.train import step_memory as memory_module
from tca.fusion.train.config import TrainConfig
from tca.fusion.train.loss import fusion_loss
from tca.fusion.train.step_memory import StepMemory, step_memory
from tca.fusion.train.step_time import time_steps

NAMES = [f"{verb}ing {number}" for number in range(5) for verb in ("lift", "push", "roll")]
FORMS = {
    "mean": FeatureShapes(None, (14, 14), 96, 8, 64),
    "frames": FeatureShapes(8, (14, 14), 96, 8, 64),
    "frames, pooled": FeatureShapes(8, (7, 7), 96, 8, 64),
    "other backbones": FeatureShapes(4, (2, 5), 1000, 6, 37),
}
SSV2 = {
    "mean": FeatureShapes(None, (14, 14), 768, 8, 512),
    "frames": FeatureShapes(8, (14, 14), 768, 8, 512),
}
CHANGES: dict[str, dict[str, object]] = {
    "no feed-forward": {"ratio": 0},
    "no look-alikes": {"similar": 0, "similar_segments": 0},
    "odd sizes": {"heads": 3, "graph_layers": 2, "layers": 1, "ratio": 1.5, "bottleneck": 40},
}


def linear(tokens: int, width: int, out: int) -> int:
    """FLOPs of a linear layer; its bias is not counted."""
    return 2 * tokens * width * out


def heads_width(width: int, heads: int) -> int:
    return heads * 8 * math.ceil(width / heads / 8)


def attention(queries: int, keys: int, width: int) -> int:
    """Scores of all queries and keys, and the mixture, over all heads of `width` together."""
    return 2 * (2 * queries * keys * width)


def graph_formula(
    frames: int, nodes: int, tube: bool, width: int, similar: int, config: ModelConfig
) -> int:
    """A layer on `frames` x `nodes` tokens, every node held against every other of its frame."""
    heads, inner = config.heads, heads_width(width, config.heads)
    tube_width = inner // heads * (heads // 2) if tube else 0
    tokens = frames * nodes
    return (
        linear(tokens, width, 3 * inner)
        + linear(tokens, inner, width)
        + (2 * frames * nodes**2 * width if similar else 0)
        + attention(tokens, nodes, inner - tube_width)
        + attention(tokens, frames, tube_width)
    )


def cross_formula(mine: int, others: int, width: int, other: int, config: ModelConfig) -> int:
    """From `mine` tokens to `others`, and the feed-forward."""
    inner = heads_width(width, config.heads)
    hidden = round(config.ratio * width)
    return (
        linear(mine, width, inner)
        + linear(others, other, 2 * inner)
        + attention(mine, others, inner)
        + linear(mine, inner, width)
        + 2 * linear(mine, width, hidden)
    )


def readout_formula(segments: int, grid: tuple[int, int], width: int, cells: int, rank: int) -> int:
    count, rank = min(cells, grid[0]) * min(cells, grid[1]), min(rank, width)
    change = linear(segments * count, width, rank) if segments > 1 else 0
    return linear(count, width, rank) + change


def readout_features(
    segments: int,
    grid: tuple[int, int],
    width: int,
    cells: int,
    rank: int,
    energy_cells: int = ModelConfig().energy_cells,
) -> int:
    count, rank = min(cells, grid[0]) * min(cells, grid[1]), min(rank, width)
    finer = min(energy_cells, grid[0]) * min(energy_cells, grid[1])
    energies = (2 if finer > 1 else 1) * (2 * segments - 1) * finer
    return count * rank + (segments * count * rank + energies if segments > 1 else 0)


def formula(variant: str, shapes: FeatureShapes, config: ModelConfig) -> dict[str, int]:
    """FLOPs of tca's variants, by part."""
    frames, grid = shapes.segments or 1, shapes.grid
    wide, other = (min(w, config.max_width) for w in (shapes.semantic_width, shapes.motion_width))
    patches, segments = grid[0] * grid[1], shapes.motion_segments
    streams = {"semantic": (frames, grid, wide), "motion": (segments, (1, 1), other)}
    if variant.endswith("_only"):
        streams = {name: s for name, s in streams.items() if variant.startswith(name)}
    found = {"stems": 0}
    if "semantic" in streams and shapes.semantic_width > config.max_width:
        found["stems"] += linear(frames * patches, shapes.semantic_width, wide)
    if variant in ("gasm_cast", "cross_attention", "semantic_only", "motion_only"):
        graphs = {
            "semantic": (frames, patches, frames > 1, wide, config.similar),
            "motion": (1, segments, False, other, config.similar_segments),
        }
        for name in streams:
            of_layer = graph_formula(*graphs[name], config)
            found[f"graph attention, {name}"] = config.graph_layers * of_layer
    tokens, narrow = frames * patches, config.bottleneck
    if variant in ("gasm_cast", "bcast"):
        for name, mine, others, width in (
            ("semantic", tokens, segments, wide),
            ("motion", segments, tokens, other),
        ):
            found[f"cross layers, {name}"] = config.layers * (
                linear(mine, width, narrow)
                + cross_formula(mine, others, narrow, narrow, config)
                + linear(mine, narrow, width)
            )
    if variant == "cross_attention":
        across = cross_formula(tokens, segments, wide, other, config)
        back = cross_formula(segments, tokens, other, wide, config)
        found["cross layers, semantic"] = config.layers * across
        found["cross layers, motion"] = config.layers * back
    classes = len(NAMES)
    if variant == "attentive_probe":
        head = linear(1, wide + other, classes)
        for count, width in ((tokens, wide), (segments, other)):
            head += cross_formula(1, count, width, width, config)
    else:
        sizes = [(*s, config.cells, config.rank) for s in streams.values()]
        features = [readout_features(*size) for size in sizes]
        head = sum(readout_formula(*size) for size in sizes)
        if variant == "gated_sum":
            head += 2 * linear(1, sum(features), narrow) + linear(1, narrow, classes)
        else:
            head += linear(1, sum(features), classes)
    found["head"] = head
    return {part: flops for part, flops in found.items() if flops}


def by_part(parts: list[PartCost]) -> dict[str, int]:
    return {part.part: part.flops for part in parts if part.flops}


@pytest.mark.parametrize(
    ("variant", "form"),
    [(v, f) for v in OWN for f in FORMS if f == "frames" or v in ("gasm_cast", "cross_attention")],
)
def test_flops_are_those_of_the_formula_and_parameters_those_of_the_model(
    variant: str, form: str
) -> None:
    config, shapes = ModelConfig(variant=variant, allow_large=True), FORMS[form]
    cost = model_cost(config, shapes, NAMES)
    assert by_part(cost.parts) == formula(variant, shapes, config)
    assert cost.flops == sum(formula(variant, shapes, config).values())
    model = build(config, shapes, NAMES)
    assert cost.parameters == parameters(model)
    assert sum(p.numel() for p in model.head.parameters()) == next(
        part.parameters for part in cost.parts if part.part == "head"
    )


def test_the_default_on_ssv2_costs_what_the_formula_says_and_is_under_twenty_million() -> None:
    config = ModelConfig()
    cost = model_cost(config, SSV2["frames"], NAMES)
    assert by_part(cost.parts) == formula("gasm_cast", SSV2["frames"], config)
    assert 9e6 < cost.parameters < 20e6


@pytest.mark.parametrize("change", CHANGES)
def test_flops_follow_the_configuration(change: str) -> None:
    for variant in ("gasm_cast", "cross_attention"):
        config = ModelConfig(variant=variant, allow_large=True, **CHANGES[change])
        shapes = FeatureShapes(4, (3, 4), 96, 6, 64)
        cost = model_cost(config, shapes, NAMES)
        assert by_part(cost.parts) == formula(variant, shapes, config)


def test_layer_heads_are_a_part_of_their_own() -> None:
    plain = model_cost(ModelConfig(), FORMS["mean"], NAMES)
    told = model_cost(ModelConfig(progressive=True), FORMS["mean"], NAMES)
    more = {part.part: part for part in told.parts if part not in plain.parts}
    assert set(more) == {"layer heads"}
    # Layer 1 tells 3 verbs, layer 2 the classes; one cell a frame and all segments.
    pooled = [(1, (14, 14), 96, 1, 64), (8, (1, 1), 64, 1, 64)]
    features = sum(readout_features(*one, 1) for one in pooled)
    reading = 2 * sum(readout_formula(*one) for one in pooled)
    expected = reading + linear(1, features, 3) + linear(1, features, len(NAMES))
    assert more["layer heads"].flops == expected


class Mixed(Variant):
    """A variant of somebody else's, with a part of a name of its own."""

    def __init__(self, config: ModelConfig, shapes: FeatureShapes, classes: Sequence[str]) -> None:
        super().__init__(config, shapes, classes)
        self.mixer = nn.Linear(self.width("motion"), self.width("motion"))

    def fuse(self, tokens: Tokens) -> list[Tokens]:
        return [tokens | {"motion": self.mixer(tokens["motion"])}]


def test_a_plugged_in_part_goes_by_its_attribute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OWN, "mixed", Mixed)
    cost = model_cost(ModelConfig(variant="mixed"), FORMS["mean"], NAMES)
    assert [part.part for part in cost.parts] == ["stems", "mixer", "head"]
    assert cost.parts[1] == PartCost("mixer", 64 * 64 + 64, *[linear(8, 64, 64)] * 2)


def test_precision_is_the_configured_one() -> None:
    shapes = FeatureShapes(None, (6, 6), 96, 8, 64)
    by_precision = {
        precision: step_memory(
            ModelConfig(variant="bcast", layers=1),
            shapes,
            NAMES,
            TrainConfig(batch_size=64, precision=precision),
            "gpu",
        )
        for precision in ("auto", "bfloat16", "float32")
    }
    assert by_precision["auto"] == by_precision["bfloat16"]
    assert by_precision["bfloat16"].kept < 0.8 * by_precision["float32"].kept


@pytest.mark.parametrize("form", ["mean", "frames, pooled"])
def test_useful_flops_are_those_of_the_edges_that_model_graphs_shows(form: str) -> None:
    shapes, config = FORMS[form], ModelConfig()
    features = random_rows(shapes, 2)
    cost = model_cost(config, shapes, NAMES, features)
    model = build(config, shapes, NAMES).eval()
    model.fit_statistics([features])
    graphs = model.graphs(*features)
    for name, width, frames in (("semantic", 128, shapes.segments or 1), ("motion", 64, 1)):
        (graph,) = graphs[name]
        adjacent = graph.adjacency().sum() / 2
        nodes = graph.edges.shape[-1]
        part = next(part for part in cost.parts if part.part == f"graph attention, {name}")
        tokens = linear(frames * nodes, {"semantic": 96, "motion": 64}[name], 4 * width)
        if frames == 1:
            # All heads go along all edges.
            expected = 2 * 2 * width * float(adjacent)
        else:
            # Half of them inside frames, half along tubes; a node itself is in both.
            inside = float(graph.edges.sum()) / 2
            through = float(adjacent) - inside + frames * nodes
            expected = 2 * 2 * (width / 2) * (inside + through)
        assert part.useful_flops == pytest.approx(tokens + expected)
        assert part.useful_flops < part.flops
    rest = [part for part in cost.parts if not part.part.startswith("graph")]
    assert all(part.useful_flops == part.flops for part in rest)


def test_content_decides_how_many_edges_are_useful() -> None:
    shapes = FeatureShapes(None, (8, 8), 16, 4, 16)
    config = ModelConfig(similar=8, radius=1)
    y, x = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
    place = torch.stack((y, x), dim=-1).flatten(0, 1) @ torch.randn(2, 16)
    motion = torch.randn(2, 4, 16)
    near = model_cost(config, shapes, NAMES, (place.expand(2, -1, -1), motion))
    anywhere = model_cost(config, shapes, NAMES, (torch.randn(2, 64, 16), motion))
    # Look-alikes that are neighbours already are no further edges.
    assert near.useful_flops < anywhere.useful_flops
    assert near.flops == anywhere.flops


def test_the_peer_differs_from_gasm_cast_in_its_cross_layers_alone() -> None:
    ours, theirs = (
        build(ModelConfig(variant=name, allow_large=True), SSV2["mean"], NAMES)
        for name in ("gasm_cast", "cross_attention")
    )

    def shapes(model: nn.Module, cross: bool) -> dict[str, torch.Size]:
        named = model.named_parameters()
        return {name: p.shape for name, p in named if name.startswith("layers.") == cross}

    assert shapes(ours, cross=False) == shapes(theirs, cross=False)
    peer = shapes(theirs, cross=True)
    for layer in range(3):
        for name, width, other in (("semantic", 768, 512), ("motion", 512, 768)):
            side = f"layers.{layer}.{name}"
            assert peer[f"{side}.cross.norm.weight"] == (width,)
            assert peer[f"{side}.cross.query.weight"] == (width, width)
            assert peer[f"{side}.cross.key_value.weight"] == (2 * width, other)
            assert peer[f"{side}.cross.out.weight"] == (width, width)
            assert peer[f"{side}.feed_forward.widen.1.weight"] == (4 * width, width)


@pytest.mark.parametrize("form", SSV2)
@pytest.mark.parametrize("ratio", [4.0, 0.0])
def test_cross_layers_cost_at_most_half_of_the_peer(form: str, ratio: float) -> None:
    ours, theirs = (
        sum(
            flops
            for part, flops in formula(name, SSV2[form], ModelConfig(ratio=ratio)).items()
            if part.startswith("cross")
        )
        for name in ("gasm_cast", "cross_attention")
    )
    assert ours <= 0.5 * theirs


def test_a_training_step_is_three_forward_passes_less_what_needs_no_gradient() -> None:
    cost = model_cost(ModelConfig(variant="bcast"), FORMS["mean"], NAMES)
    assert 2.9 * cost.flops < cost.training_flops <= 3 * cost.flops
    again = ModelConfig(variant="bcast", checkpointing=True)
    assert model_cost(again, FORMS["mean"], NAMES).training_flops == pytest.approx(
        cost.training_flops + cost.cross_flops, rel=0.01
    )


def test_over_the_limit_is_refused_unless_allowed() -> None:
    with pytest.raises(UsageError, match="allow_large"):
        model_cost(ModelConfig(variant="cross_attention"), SSV2["mean"], NAMES)


class Perceptron(nn.Module):
    """Two linear layers and a ReLU: all that autograd keeps of it can be counted by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(256, 1024), nn.ReLU(), nn.Linear(1024, 512), nn.ReLU(), nn.Linear(512, 128)
        )

    def supervised(self, semantic: Tensor, motion: Tensor) -> tuple[Tensor, list[Tensor]]:
        return self.layers(motion), []


def test_memory_of_a_perceptron_is_what_it_is_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_module, "build", lambda *_: Perceptron())
    monkeypatch.setattr(
        memory_module, "random_rows", lambda _, count: (None, torch.zeros(count, 256))
    )
    counted = step_memory(
        ModelConfig(), FORMS["mean"], NAMES, TrainConfig(batch_size=64, label_smoothing=0), "cpu"
    )
    # Both outputs of ReLU, and log-probabilities; the batch is not counted. The loss is 4 bytes in
    # a block of 512, and so is the total weight of the rows.
    kept = 4 * 64 * (1024 + 512 + 128)
    assert 0 <= counted.kept - kept <= 2048
    # Backward, layer by layer: the gradient of a layer's output and of its input side by side,
    # beside what is still kept; the gradient of a weight before it is added.
    assert kept < counted.peak <= kept + 4 * (64 * (1024 + 512 + 128) + 1024 * 512)


def saved_bytes(step: object, model: nn.Module, given: list[Tensor]) -> int:
    """What autograd says it saves, every storage once, those of the model and the batch apart."""
    own = {t.untyped_storage().data_ptr() for t in [*model.parameters(), *model.buffers(), *given]}
    saved: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        kept_alive = step()
    assert kept_alive is not None
    return sum(t.untyped_storage().nbytes() for at, t in saved.items() if at not in own)


@pytest.mark.parametrize("variant", OWN)
def test_memory_without_numbers_is_what_autograd_keeps_with_numbers(variant: str) -> None:
    shapes = FeatureShapes(4, (6, 6), 96, 8, 64)
    config, training = ModelConfig(variant=variant, layers=1), TrainConfig(batch_size=16)
    counted = step_memory(config, shapes, NAMES, training, "cpu")
    model = build(config, shapes, NAMES).train()
    rows = random_rows(shapes, 16)
    label = torch.zeros(16, dtype=torch.int64)
    by_autograd = saved_bytes(
        lambda: fusion_loss(model, *rows, label, training), model, [*rows, label]
    )
    # Blocks are rounded up to 512 bytes, and what is returned is alive without being saved.
    assert counted.kept == pytest.approx(by_autograd, rel=0.03)
    assert counted.peak >= counted.kept


def test_the_peak_is_the_profilers() -> None:
    shapes = FeatureShapes(4, (6, 6), 96, 8, 64)
    config, training = ModelConfig(layers=1), TrainConfig(batch_size=16)
    counted = step_memory(config, shapes, NAMES, training, "cpu")
    model = build(config, shapes, NAMES).train()
    rows = random_rows(shapes, 16)
    label = torch.zeros(16, dtype=torch.int64)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    with torch.profiler.profile(profile_memory=True) as profile:
        fusion_loss(model, *rows, label, training).backward()
    changes = [
        (event.start_ns(), event.nbytes())
        for event in profile.profiler.kineto_results.events()
        if event.name() == "[memory]"
    ]
    now, peak = 0, 0
    for _, change in sorted(changes):
        now += change
        peak = max(peak, now)
    assert counted.peak == pytest.approx(peak, rel=0.1)


def test_memory_grows_with_the_batch_and_shrinks_where_layers_are_made_again() -> None:
    shapes = FeatureShapes(4, (6, 6), 96, 8, 64)

    def counted(batch: int, **changes: object) -> StepMemory:
        config = ModelConfig(variant="bcast", layers=1, **changes)
        return step_memory(config, shapes, NAMES, TrainConfig(batch_size=batch), "gpu")

    once, again = counted(64), counted(64, checkpointing=True)
    assert counted(128).kept / once.kept == pytest.approx(2, rel=0.1)
    assert again.kept < 0.5 * once.kept
    assert again.peak < once.peak


def test_fused_attention_keeps_no_scores() -> None:
    # 8 heads of 900 x 900 scores a frame would be 26 MB a row, twice over with their dropout.
    shapes = FeatureShapes(None, (30, 30), 32, 8, 32)
    config = ModelConfig(variant="semantic_only", heads=8)
    fused, plain = (
        step_memory(config, shapes, NAMES, TrainConfig(batch_size=4), kind)
        for kind in ("gpu", "cpu")
    )
    assert plain.kept - fused.kept > 4 * 26e6


def test_a_copy_without_numbers_takes_no_memory() -> None:
    model = build(ModelConfig(), FORMS["mean"], NAMES)
    with hollow(model) as copied:
        tensor = torch.empty(10**9, 10**6)
        assert tensor.shape == (10**9, 10**6)
        assert copied is not model
    assert all(p.device.type == "cpu" and not p.is_meta for p in model.parameters())
    assert model(*random_rows(FORMS["mean"], 1)).shape == (1, len(NAMES))


def test_steps_are_timed_in_turns_and_the_first_is_the_measure() -> None:
    shapes = FeatureShapes(4, (6, 6), 96, 8, 64)
    variants = {name: ModelConfig(variant=name) for name in ("concat", "gasm_cast")}
    training = TrainConfig(batch_size=4, device="cpu")
    times = time_steps(variants, shapes, NAMES, training, 3)
    assert list(times) == ["concat", "gasm_cast"]
    assert times["concat"].ratio == 1
    assert all(time.seconds > 0 and time.memory is None for time in times.values())
    with pytest.raises(UsageError, match="device"):
        time_steps(variants, shapes, NAMES, TrainConfig(device="cuda:77"), 1)
