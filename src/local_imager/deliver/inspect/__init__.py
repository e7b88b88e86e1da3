"""Says what a boot file is: a tree of parts with digests, and what they mean to Talos.

``inspection`` does a file, in three steps:

- parts: ``parts`` is the tree. ``recognise`` finds the kind of any bytes, ``walking`` goes down
  within ``limits``, and ``tree`` knows which opener takes what with the readers of
  :mod:`local_imager.formats`: ``packed``, ``disks``, ``volumes``, ``filesystems``, ``images``
  (ISO), ``archives``, ``boots`` and ``programs``. ``rest``, ``volumerest`` and ``isorest`` digest
  what no part shows;
- meaning: ``meaning`` are the values, ``reading`` finds them in the tree; ``booting`` the entries
  of boot loaders (``menu``, ``addons``, ``places``, ``arguments``), ``extensions`` the list of an
  initramfs, ``signing`` Secure Boot, ``imagerfacts`` who made it;
- origin: ``known`` is the build in the store that made it, ``remake`` the command that would.
"""
