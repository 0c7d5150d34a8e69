"""What the readers of a command find, together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ensemblerl.simulations.layouts import InvalidResult
from ensemblerl.simulations.values import as_array, short, xarray_classes
from ensemblerl.sources import described, name_of

ReaderLike = Callable[[Path], Any]


def readers_of(given: Any) -> tuple[ReaderLike, ...]:
    """Readers from one or several; ValueError for anything else."""
    found = tuple(given) if isinstance(given, Sequence) and not isinstance(given, str) else (given,)
    if not found or not all(callable(reader) and not isinstance(reader, type) for reader in found):
        raise ValueError(
            'reads: wanted a reader such as readers.Json("out.json"), a callable of the working '
            f"directory, or a list of them; got {given!r}"
        )
    return found


def described_reader(reader: ReaderLike) -> Any:
    """JSON that tells readers apart."""
    describe = getattr(reader, "describe", None)
    return describe() if describe is not None else described(reader)


def read_all(readers: Sequence[ReaderLike], directory: Path) -> Any:
    """Name -> value of all readers; what a single one returned, as it is.

    Raises
    ------
    InvalidResult
        a name that two of them give, a result without names beside others, or one that is none
    """
    if len(readers) == 1:
        return _result(readers[0], readers[0](directory))
    out: dict[str, Any] = {}
    source: dict[str, ReaderLike] = {}
    for reader in readers:
        for name, value in _named(reader, reader(directory)).items():
            if name in out:
                raise InvalidResult(
                    f"reads: wanted each variable once, got {name!r} from {_told(source[name])} "
                    f"and from {_told(reader)}"
                )
            out[name], source[name] = value, reader
    return out


def _result(reader: ReaderLike, result: Any) -> Any:
    if isinstance(result, (Mapping, *xarray_classes())):  # these name what is wrong in them
        return result
    try:
        as_array("", result)
    except InvalidResult:
        raise _refused(
            reader, "a mapping, name -> value, an xarray.Dataset or numbers", result
        ) from None
    return result


def _refused(reader: ReaderLike, wanted: str, result: Any) -> InvalidResult:
    came = "nothing: is its return missing?" if result is None else short(result)
    return InvalidResult(f"reads: wanted {wanted} from {_told(reader)}, got {came}")


def _named(reader: ReaderLike, result: Any) -> Mapping[str, Any]:
    if isinstance(result, xarray_classes()) and hasattr(result, "data_vars"):
        return dict(result.data_vars)
    if not isinstance(result, Mapping):
        raise _refused(reader, "a mapping, name -> value,", result)
    return result


def _told(reader: ReaderLike) -> str:
    return repr(reader) if hasattr(reader, "describe") else name_of(reader)
