"""The recurrences. Each folder: the contract (``__init__``), the float64 oracle, and the compiled loops."""

from .._threads import check_settings

check_settings()  # before Numba is imported, which would refuse them in its own words
