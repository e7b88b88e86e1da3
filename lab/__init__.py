"""The lab: a private upstream of real parts that behaves like the official one.

It runs with the standard library alone, so that it works before any virtual environment exists.
"""
