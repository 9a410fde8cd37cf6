"""Front doors: one file, one published mechanism, one function of that name.

Imported one by one, on use, so that looking at the list loads nothing.
"""

NAMES = ("rwkv4", "rwkv5", "rwkv6", "rwkv7", "token_shift")
