"""What an edge does to its disk, one operation a method: what is on it after a power cut hangs on which were done."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


class Disk:
    """Plain files. Nothing is durable before :meth:`sync` (contents) and :meth:`sync_folder` (names) were called."""

    def write(self, path: Path, data: bytes) -> None:
        """Make a file, or write it anew."""
        path.write_bytes(data)

    def sync(self, path: Path) -> None:
        """Have a file's contents on the disk."""
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def sync_folder(self, path: Path) -> None:
        """Have the names in a folder on the disk."""
        self.sync(path)

    def rename(self, old: Path, new: Path) -> None:
        """Give a file or folder another name, in one step; a file of that name is replaced."""
        os.replace(old, new)

    def make_folder(self, path: Path) -> None:
        """Make a folder, and those above it."""
        path.mkdir(parents=True, exist_ok=True)

    def remove(self, path: Path) -> None:
        """Remove a file or a folder with all that is in it, if it is there."""
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
