"""Evidence bundles: all that shows what a version is and why it served, in one signed archive."""
