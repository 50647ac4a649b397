import json
import subprocess
import sys

import pytest
from run_benchmark import BENCHMARKS, column

from tca.fusion.model.registry import OWN


@pytest.mark.long
def test_every_variant_is_counted_and_the_pair_is_timed() -> None:
    options = "--grid 2,2 --widths 32,16 --classes 3 --batch 2 --timed-videos 2 --steps 1 --json"
    command = [sys.executable, str(BENCHMARKS / "model_cost.py"), *options.split()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    variants, pair = json.loads(done.stdout)["tables"]
    assert column(variants, "variant") == [*OWN, *OWN]
    assert len(pair["rows"]) == 2 * 2 * 4
    # In widths of 32 and 16 a bottleneck of 256 is none.
    assert all(ratio > 1 for ratio in column(pair, "ratio"))
    assert not any(column(pair, "met"))
