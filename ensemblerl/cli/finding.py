"""One line of a check: that of a cluster, which has the same looks."""

from ensemblerl.cluster.finding import BAD, GOOD, NOTE, SIGNS, WARN, Finding

__all__ = ["BAD", "GOOD", "NOTE", "SIGNS", "WARN", "Finding"]
