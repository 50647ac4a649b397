"""Settings of the fusion model; free of torch, so that the command line can read them."""

from __future__ import annotations

from pydantic import Field

from tca.config import Section


class ModelConfig(Section):
    """What is built between a store's features and the class scores."""

    variant: str = Field(
        "gasm_cast",
        description="architecture: gasm_cast, bcast, cross_attention, attentive_probe, concat, "
        "gated_sum, semantic_only, motion_only, or one that a package plugs in",
    )
    pool: int = Field(
        1,
        ge=1,
        description="average the patches pool x pool before anything else; must divide the grid",
    )
    max_width: int = Field(
        768, ge=8, description="streams wider than this are projected to it first"
    )
    heads: int = Field(8, ge=2, description="attention heads, in the graphs and in B-CAST")
    graph_layers: int = Field(1, ge=1, description="graph attention layers a stream")
    radius: int = Field(
        2, ge=0, description="a patch attends to patches within this many grid steps"
    )
    similar: int = Field(8, ge=0, description="and to this many most similar patches of its frame")
    window: int = Field(2, ge=0, description="a segment attends to segments within this many steps")
    similar_segments: int = Field(2, ge=0, description="and to this many most similar segments")
    layers: int = Field(3, ge=1, description="B-CAST layers")
    bottleneck: int = Field(256, ge=8, description="width in which the streams attend to another")
    ratio: float = Field(
        4.0,
        ge=0,
        le=8,
        description="feed-forward width over the width it follows; 0: no feed-forward",
    )
    dropout: float = Field(0.1, ge=0, lt=1, description="dropout inside attention and feed-forward")
    drop_path: float = Field(
        0.0, ge=0, lt=1, description="share of videos for which a step leaves a branch out"
    )
    cells: int = Field(
        4, ge=1, description="the head averages every frame's patches into cells x cells"
    )
    energy_cells: int = Field(
        8, ge=1, description="and how much changes, whatever it is, into this many each way"
    )
    rank: int = Field(64, ge=1, description="features a cell or segment keeps in the head")
    head_dropout: float = Field(0.3, ge=0, lt=1, description="dropout before the classifier")
    progressive: bool = Field(
        False,
        description="in training, layer 1 also tells verbs and the others classes, by own heads",
    )
    checkpointing: bool = Field(
        False, description="in training, make layers again instead of keeping them: less memory"
    )
    allow_large: bool = Field(False, description="build a model of over 20 M parameters")
