"""Fixtures of the page's tests: visits in a folder of the test, and a browser."""

import pytest
from page_factory import CHROMIUM

from modeling_avlmm.page.session import Visits


@pytest.fixture
def visits(tmp_path):
    made = Visits(tmp_path / "root")
    yield made
    made.close()


@pytest.fixture(scope="package")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="the browser tests need playwright")
    if CHROMIUM is None:
        pytest.skip("the browser tests need Chromium")
    with playwright.sync_playwright() as driver:
        made = driver.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"],
        )
        yield made
        made.close()
