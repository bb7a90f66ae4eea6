"""What every part agrees on: records, the workload spec, settings, and the error tree."""
