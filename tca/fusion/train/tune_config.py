"""Settings of a tuning; free of torch and of Optuna, so that the command line can check them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from tca.config import MOST, Section

ROWS = ("train.split", "train.select_on", "train.folds", "train.holdout", "train.seed")
"""Settings that decide which rows are scored: values over different rows say nothing."""


class Range(Section):
    """Where one setting is looked for: between two numbers, or among choices."""

    low: int | float | None = Field(None, description="least value")
    high: int | float | None = Field(None, description="greatest value")
    log: bool = Field(False, description="draw the logarithm evenly")
    step: int | float | None = Field(None, gt=0, description="distance between values")
    choices: list[bool | int | float | str | None] | None = Field(
        None, min_length=1, description="values to choose from, instead of low and high"
    )

    @model_validator(mode="after")
    def _one_kind(self) -> Range:
        numbers = (self.low, self.high)
        if self.choices is not None:
            if numbers != (None, None) or self.log or self.step is not None:
                raise ValueError("choices go without low, high, log and step")
            return self
        if self.low is None or self.high is None:
            raise ValueError("it needs low and high, or choices")
        if self.low > self.high:
            raise ValueError(f"low ({self.low}) is above high ({self.high})")
        if self.log and self.low <= 0:
            raise ValueError("log needs low above 0")
        if self.log and self.step is not None:
            raise ValueError("log and step exclude each other; leave one out")
        return self

    def ends(self) -> list[Any]:
        """Return the values that are checked before the first trial."""
        return [self.low, self.high] if self.choices is None else self.choices


class TuneConfig(Section):
    """What a tuning tries; a file of its own beside `tca.yaml`."""

    ranges: dict[str, Range] = Field(description="where to look, by setting")
    trials: int = Field(40, ge=1, le=MOST, description="how many settings are tried")
    goal: Literal["holdout_top1", "holdout_loss"] = Field(
        "holdout_top1", description="what is to be best: the highest top-1 or the lowest loss"
    )
    pruner: Literal["median", "none"] = Field(
        "median", description="median: give up trials below the median of the others"
    )

    @model_validator(mode="after")
    def _can_be_tuned(self) -> TuneConfig:
        if not self.ranges:
            raise ValueError("ranges has nothing in it")
        for name in self.ranges:
            if not name.startswith(("model.", "train.")):
                raise ValueError(f"{name} cannot be tuned; settings of model and train can")
            if any(name == one or name.startswith(f"{one}.") for one in ROWS):
                raise ValueError(
                    f"{name} changes which rows are scored, or is luck; it cannot be tuned"
                )
        return self
