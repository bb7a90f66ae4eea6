"""Pin the newest versions of the records that are not pinned yet: ``python -m tests.components.contracts.golden``."""

from tests.components.contracts.golden import pin

print("\n".join(pin()) or "every version is pinned")
