"""The folders that a step may see in a container: this machine's, or those of an image that was built."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

STRANGER = 1_000_730_000
"""A user's number of the kind that OpenShift gives out."""

WRITABLE = ("/.local", "/.cache", "/.config", "/gcs", "/minio")
"""What Kubeflow mounts into a step's pod beside ``/s3`` (version 2.17, seen on 2026-11-29)."""


@dataclass(frozen=True)
class Image:
    """``root``: its files; ``env``: what it declares; ``workdir``; ``user``: as declared; ``mine``: this machine's."""

    root: Path
    env: dict[str, str]
    workdir: str = "/"
    user: str = ""
    mine: bool = False

    def words(self, *binds, writable=WRITABLE):
        """A command's beginning that runs the rest in it as the stranger; only /tmp and ``writable`` can be written.

        ``binds``: options of bwrap for what is mounted.
        """
        words = [shutil.which("bwrap"), "--unshare-user", "--uid", str(STRANGER), "--gid", "0", "--unshare-pid"]
        words += ["--die-with-parent", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]  # noqa: S108
        for entry in sorted(self.root.iterdir()):
            place = f"/{entry.name}"
            if entry.is_symlink():
                words += ["--symlink", os.readlink(entry), place]
            elif entry.is_dir() and place not in ("/proc", "/dev", "/tmp", "/sys", "/s3", *WRITABLE):  # noqa: S108
                words += ["--ro-bind", str(entry), place]
        for folder in writable:
            words += ["--tmpfs", folder]
        return [*words, *binds, "--remount-ro", "/", "--chdir", self.workdir, "--"]


def this_machine():
    """This machine with the environment that runs the tests, in the place of an image."""
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    return Image(Path("/"), {"PATH": path, "HOME": "/"}, mine=True)  # HOME: as runtimes set it for whom nobody knows


@contextlib.contextmanager
def built(name):
    """The image of this name in buildah's storage, unpacked; by root, or within ``buildah unshare``."""

    program = shutil.which("buildah")
    assert program, "COHOBATE_TEST_IMAGE names an image in the storage of buildah, which is not installed"

    def buildah(*words):
        return subprocess.run([program, *words], check=True, capture_output=True, text=True).stdout.strip()

    container = buildah("from", "--pull-never", name)
    try:
        config = json.loads(buildah("inspect", container))["OCIv1"]["config"]
        env = dict(pair.split("=", 1) for pair in config["Env"])
        yield Image(Path(buildah("mount", container)), env, config["WorkingDir"], config["User"])
    finally:
        buildah("rm", container)
