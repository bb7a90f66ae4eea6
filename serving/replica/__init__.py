"""What one replica holds: its loaded versions, how they are admitted and warmed, and the split between them."""
