"""What boot files are made of: bounded readers for each format, over bytes that nobody vouches for.

Each module reads one format from a :class:`~local_imager.formats.source.Source` and returns plain
values; none opens a path by a name found in a file, writes outside an unnamed temporary file, or
knows what Talos is. A file that breaks its format's rules gets a
:class:`~local_imager.formats.source.FormatError`, never anything else.
"""
