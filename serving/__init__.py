"""Serving: the gateway, what its replicas hold, rollouts and their controller."""
