"""Cached video features and small fusion models for action recognition.

Stage 1 (`tca.extract`) runs two frozen networks over every video once and writes a store
(`tca.cache`); stage 2 (`tca.fusion`) trains and evaluates fusion models on stores alone.
"""

__version__ = "0.1.0"
