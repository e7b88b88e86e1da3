"""The content-addressed store: an OCI layout with assets, locks, export, collection, checks."""
