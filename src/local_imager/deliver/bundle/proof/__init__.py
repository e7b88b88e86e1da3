"""The proof before travel: builds are planned from a bundle alone.

``check`` reads the files with ``keeping``, knows the ``farside``, plans with ``proving`` and says
it as ``proofs``.
"""
