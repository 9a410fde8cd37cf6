"""The steps between mechanisms: linear maps, norms, shifts and element-wise formulas, on packed rows."""
