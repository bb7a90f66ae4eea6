"""Exports: bundles that answer from raw input as the judged artefact does, without Cohobate."""
