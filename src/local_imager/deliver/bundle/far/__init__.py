"""The far side: a bundle is read, judged, staged, named and reported.

``importing`` reads files into ``intake``: ``judging`` asks the policy over ``staged`` documents,
``stager`` and ``segments`` write blobs, ``stock`` knows what is here. ``completing`` and ``naming``
(with ``batch``) make items visible; ``handout`` gives documents to people; ``report``,
``reportfiles`` and ``page`` tell of it.
"""
