"""Bundles: one file (or some parts) that carries all that a site without network needs.

The file is a tar of an OCI layout with its manifest, ``bundle.json``, in front.

- What it is: ``model`` (the manifest's values), ``manifest`` and ``fields`` (its JSON),
  ``consistency`` (its rules), ``tarform`` (headers to the byte), ``signing`` (who vouches).
- Making it: ``order`` and ``wanted`` (what is asked for), ``gather``, ``attached``, ``finished``
  and ``policytext`` (bringing it), ``contents`` (items and blobs), ``split``, ``create``,
  ``writer``, ``pump``, ``packed``, ``outfile`` and ``signature`` (writing it).
- Leaving out what is there: ``inventory``, ``delta``, ``kin``, ``similar``, ``making``,
  ``windows``, ``recompress``, ``content``; ``rebuild`` is the way back.
- Reading it once, with every fault named: ``reader``, ``front``, ``course``, ``walk``, ``taking``,
  ``astray``, ``stray``, ``packing``, ``partstream``, ``zstdframe``, ``faults``; whoever reads is a
  ``reception``. ``verifying`` wants nothing but the answer, ``head`` only the first two members.
- Is it enough: ``check``, ``keeping``, ``farside``, ``proving``, ``proofs``.
- Taking it in: ``importing``, ``intake``, ``judging``, ``staged``, ``stager``, ``segments``,
  ``stock``, ``completing``, ``naming``, ``batch``, ``handout``, ``refusals``; told by ``report``,
  ``reportfiles`` and ``page``.
- Looking at it: ``view``, ``diff``.
"""
