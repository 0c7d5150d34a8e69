"""Densities on the cube that can be drawn from and learnt; numpy only."""
