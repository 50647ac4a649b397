"""Scoring a run on a store it was not trained on."""
