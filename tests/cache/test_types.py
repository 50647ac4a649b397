"""Stored types, held against numpy's own rounding and against the definition."""

import numpy as np
import pytest
import torch
from example_store import Example

from tca.cache.store import Store
from tca.cache.types import decode, encode, finite, from_numpy, to_numpy

VALUES = torch.from_numpy(np.random.default_rng(0).standard_cauchy((50, 4, 16)))


def stored_and_back(features: torch.Tensor, stored: str) -> torch.Tensor:
    encoded = {
        name: from_numpy(to_numpy(t), stored) for name, t in encode("x", features, stored).items()
    }
    return decode(encoded["x"], encoded.get("x_scale"))


@pytest.mark.parametrize("stored", ["float16", "float32"])
def test_floats_are_rounded_as_numpy_rounds(stored: str) -> None:
    with np.errstate(over="ignore"):
        expected = VALUES.numpy().astype(stored)
    assert np.array_equal(encode("x", VALUES, stored)["x"].numpy(), expected)


def test_bfloat16_is_the_upper_half_of_float32_rounded_to_even() -> None:
    bits = VALUES.float().numpy().view(np.uint32).astype(np.uint64)
    expected = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    assert np.array_equal(to_numpy(encode("x", VALUES, "bfloat16")["x"]), expected)


def test_int8_is_off_by_half_a_step_at_most_and_cuts_nothing() -> None:
    encoded = encode("x", VALUES, "int8")
    numbers, scale = encoded["x"], encoded["x_scale"]
    assert (numbers.dtype, scale.dtype) == (torch.int8, torch.float16)
    assert scale.shape == VALUES.shape[:-1]
    step = scale.double().unsqueeze(-1)
    assert (numbers.double() * step - VALUES).abs().le(step / 2 * (1 + 1e-6)).all()
    # The largest magnitude of every patch uses the range: at least 126 of 127 steps.
    assert numbers.abs().amax(-1).ge(126).all()


@pytest.mark.parametrize("stored", ["float16", "bfloat16", "float32", "int8"])
@pytest.mark.parametrize("value", [0.0, 1e-30, 6e-8, 1.0, 6e4])
def test_a_patch_of_one_value(stored: str, value: float) -> None:
    found = stored_and_back(torch.full((1, 1, 8), value, dtype=torch.float32), stored)
    assert found.isfinite().all()
    smallest = {"bfloat16": 0.0, "float32": 0.0}.get(stored, 6e-8)
    assert (found.float() - value).abs().max() <= max(value * 2**-8, smallest)


@pytest.mark.parametrize("stored", ["float16", "bfloat16", "float32", "int8"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_told(stored: str, bad: float) -> None:
    features = torch.ones(3, 4, 8)
    features[1, 2, 3] = bad
    assert finite(encode("x", features, stored)).tolist() == [True, False, True]


def test_what_overflows_is_told() -> None:
    features = torch.tensor([1.0, 7e4, 9e6]).reshape(3, 1, 1).expand(3, 2, 4)
    told = {name: finite(encode("x", features, name)).tolist() for name in ("float16", "int8")}
    assert told == {"float16": [True, False, False], "int8": [True, True, False]}
    assert finite(encode("x", features, "bfloat16")).all()


@pytest.mark.parametrize("stored", ["float16", "bfloat16", "float32", "int8"])
@pytest.mark.parametrize("store_format", ["zarr", "hdf5"])
def test_a_store_gives_back_what_was_encoded(tmp_path, stored: str, store_format: str) -> None:
    types = {"semantic": stored, "motion": stored}
    example = Example(tmp_path / "train", types=types, store_format=store_format)
    example.write()
    store = Store.open(example.path)
    assert {name: stream.type for name, stream in store.streams.items()} == types
    assert list(store.format.arrays) == list(example.features)
    for name, array in example.features.items():
        assert store.read(name, store.ready()).dtype == array.dtype
        assert np.array_equal(store.read(name, store.ready()), array[store.ready()])
