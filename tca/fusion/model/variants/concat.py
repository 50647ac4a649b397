"""Late fusion: each stream read by itself, the vectors concatenated, one linear classifier."""

from __future__ import annotations

from tca.fusion.model.variant import Variant


class Concat(Variant):
    """GASM-CAST without graphs and without B-CAST: its head alone."""
