"""Settings of training; free of torch, so that the command line can read them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from tca.config import MOST, Section

SplitName = Literal["train", "validation", "test"]


class TrainConfig(Section):
    """What a fusion model is trained on, how, and which of its checkpoints is the best."""

    split: SplitName = Field("train", description="split whose store is trained on")
    select_on: SplitName | None = Field(
        None, description="split that chooses the best checkpoint instead of a holdout"
    )
    folds: int | None = Field(
        None, ge=2, description="cross-validate inside the split with this many folds"
    )
    epochs: int = Field(30, ge=1, le=MOST, description="passes over the training rows")
    batch_size: int = Field(32, ge=1, le=MOST, description="rows a step")
    lr: float = Field(5e-4, gt=0, description="highest learning rate of AdamW")
    weight_decay: float = Field(
        0.05, ge=0, description="of weight matrices; never of norms, biases, gates"
    )
    warmup: float = Field(
        0.1, ge=0, lt=1, description="share of the steps in which lr rises to its height"
    )
    label_smoothing: float = Field(
        0.1, ge=0, lt=1, description="share of the target given to all classes"
    )
    layer_weight: float = Field(
        0.5, ge=0, description="of the layers' own heads in the loss, under model.progressive"
    )
    clip_norm: float = Field(1.0, gt=0, description="longest gradient; longer ones are cut to it")
    holdout: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="share of training videos kept to choose the best checkpoint; 0: last is best",
    )
    patience: int = Field(
        10,
        ge=1,
        description="epochs without a better score on the holdout after which training stops",
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="auto is bfloat16 autocast on GPUs that have it, float32 elsewhere"
    )
    compile: bool = Field(
        False, description="torch.compile the step: a minute at the start, faster steps after it"
    )
    device: str = Field("auto", description="auto (a GPU where there is one), cpu, cuda or cuda:1")
    seed: int = Field(
        0, ge=0, lt=2**32, description="of initial weights, order, dropout and the holdout"
    )

    @model_validator(mode="after")
    def _chosen_once(self) -> TrainConfig:
        if self.folds is not None and self.select_on is not None:
            raise ValueError("train.folds and train.select_on exclude each other; leave one out")
        return self
