"""Settings of training; free of torch, so that the command line can read them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from tca.config import MOST, Section

SplitName = Literal["train", "validation", "test"]


class SeedConfig(Section):
    """Where chance comes from; a number in its place sets both."""

    data: int = Field(
        0, ge=0, lt=2**32, description="of the order of rows, the holdout, the folds, augmentation"
    )
    model: int = Field(0, ge=0, lt=2**32, description="of initial weights and dropout")


class AugmentConfig(Section):
    """How cached features are changed before a model learns from them; all of it is off."""

    token_dropout: float = Field(
        0.0, ge=0, lt=1, description="share of patches and segments replaced by the mean feature"
    )
    mixup: float = Field(
        0.0,
        ge=0,
        le=100,
        description="alpha of Beta(alpha, alpha), which draws how much of a row stays when it is "
        "mixed with its neighbour, as 0.2; 0: not mixed",
    )
    noise: float = Field(
        0.0, ge=0, le=100, description="normal, in standard deviations of each feature"
    )
    shift: int = Field(
        0,
        ge=0,
        le=1000,
        description="most segments that a row is moved in time, either way; its ends are repeated",
    )


class TrainConfig(Section):
    """What a fusion model is trained on, how, and which of its checkpoints is the best."""

    split: SplitName = Field("train", description="split whose store is trained on")
    select_on: SplitName | None = Field(
        None, description="split that chooses the best checkpoint instead of a holdout"
    )
    folds: int | None = Field(
        None, ge=2, description="cross-validate inside the split with this many folds"
    )
    holdout: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="share of training videos kept to choose the best checkpoint; 0: last is best",
    )
    views: Literal["all", "one"] = Field(
        "all", description="of a video's rows an epoch takes all, or one by chance"
    )
    balanced: bool = Field(
        False,
        description="an epoch takes as many rows as without it, of every class equally many",
    )
    augment: AugmentConfig = Field(
        AugmentConfig(), description="of cached features; see docs/training.md"
    )
    epochs: int = Field(30, ge=1, le=MOST, description="passes over the training rows")
    batch_size: int = Field(32, ge=1, le=MOST, description="rows a step, of all devices together")
    accumulate: int = Field(
        1,
        ge=1,
        le=MOST,
        description="a batch goes through the model in this many parts: less memory, same step",
    )
    lr: float = Field(5e-4, gt=0, description="highest learning rate of AdamW")
    schedule: Literal["cosine", "linear", "constant", "plateau"] = Field(
        "cosine",
        description="what becomes of lr after the warm-up; plateau: times plateau_factor whenever "
        "the holdout's loss has not fallen for plateau_patience epochs",
    )
    warmup: float = Field(
        0.1, ge=0, lt=1, description="share of the steps in which lr rises to its height"
    )
    min_lr: float = Field(0.0, ge=0, le=1, description="share of lr that cosine and linear end at")
    plateau_factor: float = Field(0.3, gt=0, lt=1, description="see schedule")
    plateau_patience: int = Field(3, ge=1, description="see schedule")
    weight_decay: float = Field(
        0.05, ge=0, description="of weight matrices; never of norms, biases, gates"
    )
    decay_rules: dict[str, float] = Field(
        {},
        description="weight decay by name of parameter, as {'head.*': 0.2}; the first pattern that "
        "fits counts, for norms, biases and gates too",
    )
    clip_norm: float = Field(1.0, gt=0, description="longest gradient; longer ones are cut to it")
    label_smoothing: float = Field(
        0.1, ge=0, lt=1, description="share of the target given to all classes"
    )
    layer_weight: float = Field(
        0.5, ge=0, description="of the layers' own heads in the loss, under model.progressive"
    )
    ema: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="decay a step of an average of the weights, as 0.999, which is then what is "
        "scored and kept; 0: the weights themselves",
    )
    patience: int = Field(
        10,
        ge=1,
        description="epochs without a better score on the holdout, if there is one, before it ends",
    )
    keep: int = Field(
        1, ge=1, le=1000, description="how many of the best epochs' weights stay in the run folder"
    )
    save_steps: int | None = Field(
        None, ge=1, description="steps between saves of all that a resume needs; null: a minute"
    )
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto",
        description="of autocast; auto is bfloat16 on GPUs that have it, float32 elsewhere; "
        "float16 scales its loss",
    )
    hooks: list[str] = Field(
        [], description="classes that look on, as module:Class; see docs/training.md"
    )
    wandb: str | None = Field(
        None,
        min_length=1,
        description="project on Weights & Biases that curves are sent to; needs tca[wandb]",
    )
    compile: bool = Field(
        False, description="torch.compile the step: minutes at the start, faster steps after it"
    )
    device: str = Field("auto", description="auto (a GPU where there is one), cpu, cuda or cuda:1")
    seed: SeedConfig = Field(SeedConfig(), description="a number for both, or each by itself")

    @field_validator("seed", mode="before")
    @classmethod
    def _one_number_for_both(cls, value: Any) -> Any:
        whole = isinstance(value, int) and not isinstance(value, bool)
        return {"data": value, "model": value} if whole else value

    @model_validator(mode="after")
    def _settings_that_go_together(self) -> TrainConfig:
        if self.folds is not None and self.select_on is not None:
            raise ValueError("train.folds and train.select_on exclude each other; leave one out")
        if self.schedule == "plateau" and self.holdout == 0 and self.select_on is None:
            raise ValueError(
                "train.schedule=plateau looks at a holdout; set train.holdout above 0 or "
                "train.select_on"
            )
        if any(decay < 0 for decay in self.decay_rules.values()):
            raise ValueError("train.decay_rules holds a negative weight decay; 0 is the least")
        return self
