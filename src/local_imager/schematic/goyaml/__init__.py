"""The YAML dialect of the Image Factory's Go library, reading and writing.

A schematic's ID is the hash of text which that library wrote, and whether a schematic is accepted
hangs on what it reads. No Python library reads and writes alike, so this package holds the
library's rules (go.yaml.in/yaml/v4, with the defaults of its version 3): ``reader`` (bytes to
characters), ``scanner`` (characters to tokens), ``composer`` (tokens to nodes), ``resolver``
(what a plain scalar means) and ``emitter`` (values to text). It knows nothing about schematics.
"""

from __future__ import annotations
