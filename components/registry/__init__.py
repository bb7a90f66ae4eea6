"""The registry: student versions with their lineage in MLflow, and the aliases that say which one serves."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from components.registry.registry import Alias, ForeignVersion, Registry, VersionInfo

__all__ = ["Alias", "ForeignVersion", "Registry", "VersionInfo"]


def __getattr__(name: str) -> Any:
    """Import what is exported when it is asked for: a look at the versions (:mod:`.glance`) needs none of it."""
    if name in __all__:
        from components.registry import registry

        return getattr(registry, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
