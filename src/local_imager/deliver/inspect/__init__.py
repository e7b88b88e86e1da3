"""Says what a boot file is: a tree of parts with digests, and what they mean to Talos.

``parts`` is the tree; ``recognise`` finds the kind of any bytes and ``tree`` walks down through
the readers of :mod:`local_imager.formats`; ``meaning`` reads the tree as Talos means it (version,
schematic, extensions, kernel arguments, META, signatures).
"""
