"""Benchmarks of wkvnp. ``setup`` makes the arrays and calls once to compile; a ``time_`` method holds one call."""
