"""Runs on Kubeflow as the platform knows them: the first step, the exit handler, and what the others tell."""
