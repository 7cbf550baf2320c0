"""One headless Chromium for a file of tests: Debian's own, found where it is installed and nowhere looked up."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PROGRAMS = ("chromium", "chromedriver")
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--hide-scrollbars",
    "--force-device-scale-factor=1",
    "--window-size=1280,1000",
)


@contextmanager
def chromium(profile: Path) -> Iterator:
    """A browser with a profile of its own, closed at the end; the test is skipped where there is none.

    Args:
        profile: an empty folder.
    """
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium: pip install 'vlmpack[dev]'")
    browser, driver = (shutil.which(name) for name in PROGRAMS)
    if browser is None or driver is None:
        pytest.skip("needs Debian's chromium and chromium-driver: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    window = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=driver))
    try:
        yield window
    finally:
        window.quit()
