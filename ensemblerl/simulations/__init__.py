"""How one member runs: a function, in its own process if wanted, and what its result is."""
