"""Leaving out what the far side has, and sending what resembles it as a difference.

``delta`` plans, with ``kin`` (which blobs to compare) and ``similar`` (how much they have in
common); ``making`` makes a payload of ``windows``, over each ``content``, which ``recompress``
can pack again to the same bytes where that is proved; ``rebuild`` is the way back.
"""
