"""The steps between mechanisms: linear maps, norms, shifts and element-wise formulas, on packed rows."""

from .._threads import check_settings

check_settings()  # before Numba is imported, which would refuse them in its own words
