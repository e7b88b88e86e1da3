"""Compares two boot files down to the level where a person understands the difference.

The way of a comparison: ``sides`` brings either side here (file, store, ``factory`` with its
``address`` and ``refusals``, registry by ``registryimage``), ``pair`` inspects and compares both,
``walk`` says what differs, ``showing`` makes values of it, ``verdict`` holds them, and ``report``,
``page`` (with ``pagestyle`` and ``sidetable``) and the command line show them; ``batch`` does a
whole set, ``expected`` knows what equality may be expected.

What ``walk`` asks, in turn:

- what differs in meaning: ``meaning_diff``, ``entrypairs``, ``schematic_diff``, as ``semantic``;
- which parts differ: ``trees`` pairs them (``align``, ``wrapping``, ``spot``), each difference a
  ``finding``; ``derived`` and ``factwords`` know what their facts say, ``noise`` which of them say
  nothing about the content, ``signed``, ``extensionlist`` and ``yamlfolding`` read what restates
  other parts;
- what follows from what: ``fold``, by the rules of ``covering``, ``release`` and ``outside``;
- where bytes differ: ``bytesdiff``, outside of parts ``gaps`` over the ``layouts`` of containers.

``words`` and ``masking`` turn values into text that may be shown.
"""
