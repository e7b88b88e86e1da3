"""Ceilings on what untrusted YAML may ask for, each with its reason."""

from __future__ import annotations

# Nesting of collections. A schematic needs about ten; every level costs two Python frames while
# the value is built, and the interpreter stops at a thousand.
MAX_DEPTH = 200

# Values in the document. A thousand extensions make a thousand; this many take about three
# seconds to read, which a megabyte of commas would stretch to fifteen.
MAX_NODES = 100_000

# Merges ('<<') inside merged mappings: each costs four frames, and nobody needs three.
MAX_MERGE_DEPTH = 20

# Nodes that building the value may touch, aliases followed: this many take about a second.
MAX_CONSTRUCTED_NODES = 300_000

# The factory's own rule against alias bombs: beyond these counts, no more than this share of the
# touched nodes may have been reached through an alias. (Its share shrinks only above 400 000
# nodes, which MAX_CONSTRUCTED_NODES rules out.)
ALIAS_RULE_MIN_ALIASED = 100
ALIAS_RULE_MIN_TOTAL = 1000
ALIAS_RULE_MAX_SHARE = 0.99
