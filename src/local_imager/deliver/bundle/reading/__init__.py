"""Reading a bundle as a stream: once, in bounded memory, every fault named.

``reader`` leads through ``packing`` (tar bytes, also out of ``zstdframe``), ``partstream`` (read
ahead), ``front`` (manifest and label), and ``walk`` over the ``course`` of members that must come:
``taking`` hashes them and hands them to a ``reception``, ``astray`` and ``stray`` say what came in
their place as ``faults``. ``verifying`` wants nothing but the answer, ``head`` only the begin.
"""
