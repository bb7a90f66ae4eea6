"""The workloads that ship with Cohobate: their specs, and the real inputs that the demo streams."""
