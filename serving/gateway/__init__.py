"""The gateway: how a request is read, answered, metered and reported."""
