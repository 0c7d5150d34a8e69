"""Where the driver's time goes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Timings(dict[str, float]):
    """Seconds by part, summed over ``with timings("part"):`` blocks."""

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """Add the time of this block to a part."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self[part] = self.get(part, 0.0) + time.perf_counter() - began
