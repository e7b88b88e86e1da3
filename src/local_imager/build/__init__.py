"""Running the imager: requests, the container engine, conversions and the build record."""
