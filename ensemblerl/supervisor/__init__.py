"""A process for each member that is a program: it outlives the worker, and the driver."""
