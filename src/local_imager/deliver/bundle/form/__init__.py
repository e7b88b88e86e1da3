"""What a bundle is.

``model`` has the manifest's values, ``manifest`` and ``fields`` its JSON, ``consistency`` its
rules, ``tarform`` the tar to the byte, ``signing`` who vouches, ``inventory`` what a far side
has, and ``words`` the names that both sides use.
"""
