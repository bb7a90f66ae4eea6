"""Documents of a version, made of what the platform recorded and of what people declared in the spec."""
