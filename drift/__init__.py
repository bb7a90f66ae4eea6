"""Pure statistics of change: detectors, entropy, calibrated thresholds, anytime-valid tests, and the gate."""
