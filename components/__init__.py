"""The steps of a record's way: contracts, stream, label, snapshot, distill, evaluate, registry, ledger."""
