"""The recurrences. Each folder: the contract (``__init__``), the float64 oracle, and the compiled loops."""
