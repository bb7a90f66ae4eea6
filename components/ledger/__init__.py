"""The ledger: the append-only, hash-chained record of who or what did what to which model."""

from components.control.chain import GENESIS, chain, entry_hash, in_turn
from components.ledger.ledger import append, append_if, entries, verify

__all__ = ["GENESIS", "append", "append_if", "chain", "entries", "entry_hash", "in_turn", "verify"]
