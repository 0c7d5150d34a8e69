"""EnsembleRL: a deep-RL agent picks the points of a large simulation ensemble."""

__version__ = "0.1.0"
