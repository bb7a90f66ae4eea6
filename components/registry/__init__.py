"""The registry: student versions with their lineage in MLflow, and the aliases that say which one serves."""

from components.registry.registry import Alias, Registry, VersionInfo

__all__ = ["Alias", "Registry", "VersionInfo"]
