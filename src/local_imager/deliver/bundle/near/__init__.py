"""The near side: from what is asked for to the written file.

``order`` and ``wanted`` say what is asked for, ``gather``, ``attached``, ``finished``,
``policytext`` and ``refusals`` bring it, ``contents`` orders it as items and blobs, ``split`` cuts
it, ``create`` writes it with ``writer``, ``pump``, ``packed``, ``outfile`` and ``signature``.
"""
