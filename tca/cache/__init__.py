"""The contract between the stages: one store a split, open to every Zarr client.

Layout, commit protocol and attributes are described in docs/cache.md.
"""
