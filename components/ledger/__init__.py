"""The ledger: the append-only, hash-chained record of who or what did what to which model."""

from components.ledger.ledger import GENESIS, append, append_if, chain, entries, entry_hash, in_turn, verify

__all__ = ["GENESIS", "append", "append_if", "chain", "entries", "entry_hash", "in_turn", "verify"]
