"""The log-in in a real browser: what it sends of itself decides whether it is let in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, expect

from tests.servers.redis_server import RedisServer
from tests.servers.wait import free_port, wait_until
from tests.system.site import Site
from tests.web.browser import Dashboard, chromium, opened

OPERATOR, BANK = "operator-0123456789", "bank-0123456789abcd"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture
def url(site: Site, redis_server: RedisServer, short_path: Path) -> str:
    """A site that needs a token, with a camera that has frames."""
    port, tokens = free_port(), short_path / "tenants.toml"
    tokens.write_text(f'bank = "{BANK}"\n')
    tokens.chmod(0o600)
    site.write(
        cameras=[{"id": "dock", "url": "test://?size=320x180&kb=8&fps=5"}],
        redis={"address": redis_server.address},
        web={"listen": f"127.0.0.1:{port}", "token": OPERATOR, "tenants_file": str(tokens)},
    )
    site.start()
    wait_until(lambda: site.camera("dock")["stored"], 60, "stored", log=site.log_text)
    return f"http://127.0.0.1:{port}"


def log_in(dashboard: Dashboard, token: str) -> None:
    dashboard.page.get_by_label("Token").fill(token)
    dashboard.page.get_by_role("button", name="Log in").click()


def test_operators_and_tenants_log_in_and_see_what_is_theirs(browser: Browser, url: str) -> None:
    with opened(browser, url) as dashboard:
        page = dashboard.page
        dashboard.open()
        expect(page.get_by_role("heading", name="Edge Video")).to_be_visible()
        found = Axe().run(page).response["violations"]
        assert not [one["id"] for one in found if one["impact"] in ("serious", "critical")]
        log_in(dashboard, "wrong-0123456789abcdef")
        expect(page.get_by_text("This token is not known here.")).to_be_visible()
        log_in(dashboard, OPERATOR)
        wait_until(lambda: dashboard.mark('.tile[data-camera="dock"] img'), 30, "its picture is shown")
        assert not dashboard.errors
    with opened(browser, url) as dashboard:
        dashboard.open()
        log_in(dashboard, BANK)
        expect(dashboard.page.get_by_text("This site has no cameras.")).to_be_visible()
        assert not dashboard.page.locator(".tile").count()
        dashboard.open("system")
        expect(dashboard.page.get_by_text("your token sees one tenant only")).to_be_visible()
        assert not dashboard.errors
