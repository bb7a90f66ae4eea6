"""Students' networks: the contract, and those that ship, one a file."""
