"""Deep-RL agents; the only room that may import torch. This version has none yet."""
