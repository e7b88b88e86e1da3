"""Asset names, version rules and the pure planning of imager profiles."""
