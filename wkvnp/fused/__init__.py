"""Recurrences together with the elementwise steps around them, where one loop is faster than several.

Each is used by prompts and by single tokens alike.
"""
