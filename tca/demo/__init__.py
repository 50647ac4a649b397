"""The demo: a rendered data set in SSv2's format, and the user's own steps run on it."""
