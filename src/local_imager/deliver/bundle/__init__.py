"""Bundles: one file (or some parts) that carries all that a site without network needs.

The file is a tar of an OCI layout with its manifest, ``bundle.json``, in front (docs/bundles.md).
``form`` is what a bundle is, ``reading`` reads one as a stream, ``deltas`` leaves out what the far
side has; ``near`` makes bundles, ``far`` takes them into a store, ``proof`` shows before travel
that nothing is missing, ``look`` says what one holds and what two differ in. A folder imports only
from those named before it, but ``near`` and ``far`` do not know each other.
"""
