"""What a worker says of itself while it works: metrics, health, and traces."""
