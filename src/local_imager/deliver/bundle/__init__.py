"""Bundles: one file (or some parts) that carries all that a site without network needs.

The file is a tar of an OCI layout with its manifest, ``bundle.json``, in front. ``model`` says what
a manifest holds, ``tarform`` how it lies in a tar; ``gather`` and ``create`` make bundles, ``reader``
reads them as a stream and finds every fault, ``intake`` brings them into a store.
"""
