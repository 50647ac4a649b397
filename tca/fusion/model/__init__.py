"""Fusion architectures: built by name from a configuration and the shapes of a store."""
