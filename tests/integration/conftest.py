import os
import shutil

import pytest

from pipelines.forked import Warm
from tests.container import built, this_machine
from tests.pipelines.conftest import broker, clock, label_of, settings, spec, store, tickets  # noqa: F401


@pytest.fixture(scope="session")
def fork_server(tmp_path_factory):
    """A platform's, in a home of its own: which home names it has its steps forked. It imports for 20 s."""
    server = Warm(tmp_path_factory.mktemp("warm"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def image():
    """What steps run in: the image that COHOBATE_TEST_IMAGE names in buildah's storage, or this machine instead."""
    if shutil.which("bwrap") is None:
        pytest.skip("there is no bwrap (Debian: bubblewrap) to run a step in as a pod would")
    name = os.environ.get("COHOBATE_TEST_IMAGE")
    if not name:
        yield this_machine()
        return
    with built(name) as image:
        yield image


@pytest.fixture(scope="module")
def chromium():
    """The system's Chromium: none is downloaded."""
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium")
    assert path, "these tests need Chromium: apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()
