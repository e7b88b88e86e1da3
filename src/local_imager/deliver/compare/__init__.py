"""Compares two boot files down to the level where a person understands the difference.

``verdict`` holds the four answers, ``noise`` the documented list of differences that say nothing
about the content, ``walk`` compares two trees of parts, ``sides`` brings either side here (file,
store, factory, registry), ``report`` and ``page`` show the result.
"""
