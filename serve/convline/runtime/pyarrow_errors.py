"""pyarrow, of the extra `parquet`: what is raised without it, and its errors in one sentence."""

from collections.abc import Iterator
from contextlib import contextmanager

from convline.errors import InputError, ServeError


@contextmanager
def pyarrow_errors(where: str) -> Iterator[None]:
    """Raise pyarrow's errors, some of which are OSError, ValueError or KeyError, as InputError.

    Raises ServeError if pyarrow cannot be imported.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        cure = "pip install 'convline[parquet]'"
        raise ServeError(f"{where}: pyarrow cannot be imported; {cure}") from error
    try:
        yield
    except (pyarrow.ArrowException, OSError, ValueError, LookupError) as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(where, f"the file cannot be read: {reason}") from error
