"""OCI images, layouts and registries; knows nothing of Talos."""
