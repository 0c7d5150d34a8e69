"""Problems to try things on: small, fast, with a known truth.

`advection_diffusion` takes about 50 ms a run (a release in a sheared wind), `lorenz96` runs more
than 10,000 points a second (parameters of a chaotic ring), `mixed` is a formula with every kind
of parameter. Each has ``simulate(**point)``, ``space()`` and its truth or optimum.
"""
