"""The Kubeflow pipelines, their local and remote runners, the monitors, and the trigger that starts them."""
