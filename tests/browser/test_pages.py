"""
cq's own pages in a real Chromium: live patches that disturb nobody, the keyboard, no policy
loosened, nothing that keeps people out, and nothing to scroll sideways for at 320 pixels.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.sessions.models import Session
from django.utils import timezone
from playwright.sync_api import Browser, BrowserContext, Page, Request, expect

from cq.definition.status import Status
from cq.models import Progress, RepeatingTask, Sample, Tally, Task, Worker
from tests.browser.accessibility import problems
from tests.browser.driver import Site, shoot
from tests.integration.test_access import Person
from tests.sampleapp.tasks import add, echo, noop
from tests.waiting import wait_until

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(120)]

PAGES = ("", "tasks/", "repeating/", "workers/")
SHOP = ("render_tile", "import_csv", "send_receipt", "resize_image", "nightly_report")


def furnish() -> None:
    """A shop in the middle of its day."""
    now = timezone.now()
    minute = int(time.time() // 60)
    workers = [
        Worker.objects.create(hostname=f"web-{n}", pid=4100 + n, slots=8, beat_at=now)
        for n in (1, 2)
    ]
    workers.append(Worker.objects.create(hostname="cpu-1", pid=77, slots=4, queues=["video"]))
    gone = now - timedelta(seconds=95)
    Worker.objects.create(hostname="cpu-2", pid=78, alive=False, state="dead", beat_at=gone)
    for n in range(60):
        wave = 40 + 25 * math.sin(n / 7) + 9 * math.sin(n * 1.7)
        load = {"waiting": int(wave * 3), "running": int(4 + wave / 8), "slots": 20}
        Sample.objects.create(minute=minute - n, oldest=wave / 8, latency_p95=wave / 900, **load)
        for queue, share in (("default", 0.7), ("mail", 0.25), ("video", 0.05)):
            done = int(wave * 18 * share)
            Tally.objects.create(
                minute=minute - n,
                worker=workers[0].id,
                queue=queue,
                done=done,
                failed=done // 90 + (n in (20, 21)) * 8,
            )
    entry = RepeatingTask.schedule(
        "30 2 * * 1-5", add, [1, 2], name="Nightly report", timezone="Europe/Berlin"
    )
    RepeatingTask.objects.filter(pk=entry.pk).update(last_run=now - timedelta(hours=6))
    for n in range(30):
        ok = n not in (7, 19)
        Task.objects.create(
            func_name=add.name,
            status=Status.SUCCESS if ok else Status.FAILURE,
            repeating=entry,
            tick=now - timedelta(days=30 - n),
            submitted=now - timedelta(days=30 - n),
            started=now - timedelta(seconds=40 + n),
            finished=now,
        )
    statuses = [Status.SUCCESS] * 9 + [Status.FAILURE, Status.REVOKED, Status.LOST]
    for n in reversed(range(24)):
        status = statuses[n % len(statuses)]
        Task.objects.create(
            func_name=f"shop.tasks.{SHOP[n % 5]}",
            status=status,
            started=now - timedelta(minutes=n, seconds=8),
            finished=now - timedelta(minutes=n),
            submitted=now - timedelta(minutes=n, seconds=9),
            error="ConnectionError: the mail server at mx-1 did not answer"
            if status == Status.FAILURE
            else None,
            owner="42" if n % 4 == 0 else None,
        )
    for n in range(34):
        Task.objects.create(
            func_name="shop.tasks.send_receipt",
            queue="mail",
            args=[n],
            run_at=now - timedelta(seconds=n),
        )
    Task.objects.create(func_name="shop.tasks.export", queue="exports")
    for n in range(11):
        task = Task.objects.create(
            func_name=f"shop.tasks.{SHOP[n % 3]}",
            status=Status.RUNNING,
            worker=workers[n % 3],
            claim_token=uuid4(),
            submitted=now - timedelta(seconds=3.2 + 5 * n),
            run_at=now - timedelta(seconds=3.02 + 5.004 * n),
            started=now - timedelta(seconds=3 + 5 * n),
            kwargs={"upload": 1200 + n},
        )
        if n % 3 == 1:
            Progress.objects.create(
                task=task.id, root=task.id, done=20 + n * 3, total=100, message="Importing rows"
            )
    RepeatingTask.schedule("*/5 * * * *", noop, name="Heartbeat")
    RepeatingTask.schedule("0 6 * * 1", echo, ["all"], name="Weekly digest", enabled=False)


@pytest.fixture
def boss(page: Page, site: Site) -> Page:
    """A page on which somebody is logged in who may do everything."""
    log_in(page.context, site)
    return page


def log_in(context: BrowserContext, site: Site) -> None:
    person = Person(f"boss-{uuid4().hex[:6]}", is_staff=True, is_superuser=True)
    cookie = {"name": "sessionid", "value": person.session, "url": site.url}
    context.add_cookies([cookie])  # type: ignore[list-item]


def ended(**changes: Any) -> Task:
    values: dict[str, Any] = {"func_name": echo.name, "status": Status.FAILURE}
    return Task.objects.create(**{**values, "finished": timezone.now(), **changes})


@pytest.fixture
def unguarded(browser: Browser, site: Site) -> Iterator[Page]:
    """A page into which axe may be injected; the policy is what the others prove."""
    context = browser.new_context(bypass_csp=True)
    log_in(context, site)
    yield context.new_page()
    context.close()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("base", ["cq", "admin/cq/task/live"])
def test_every_page_fits_a_phone_and_a_desk_in_both_themes(
    site: Site, boss: Page, theme: str, base: str
) -> None:
    furnish()
    boss.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
    for width in (1280, 320):
        boss.set_viewport_size({"width": width, "height": 900})
        for at in PAGES:
            boss.goto(f"{site.url}/{base}/{at}")
            wide = boss.evaluate("document.documentElement.scrollWidth")
            name = f"{at.strip('/') or 'overview'}-{base.split('/')[0]}-{theme}-{width}"
            shoot(boss, f"pages-{name}")
            assert wide <= width, f"{name} is {wide} pixels wide"


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_serious(site: Site, unguarded: Page, theme: str) -> None:
    furnish()
    unguarded.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
    for base in ("cq", "admin/cq/task/live"):
        for at in PAGES:
            unguarded.goto(f"{site.url}/{base}/{at}")
            found = problems(unguarded)
            if base != "cq":  # the admin's own frame is not ours to mend
                found = [problem for problem in found if "cq-" in problem]
            assert found == [], f"/{base}/{at} in {theme}"


def test_an_open_list_follows_what_happens_and_leaves_busy_rows_where_they_are(
    site: Site, boss: Page
) -> None:
    first = ended()
    boss.goto(f"{site.url}/cq/tasks/")
    rows = boss.locator("tbody tr")
    expect(rows).to_have_count(1)
    second = ended(status=Status.SUCCESS)
    expect(rows).to_have_count(2, timeout=10_000)
    assert rows.first.get_attribute("data-key") == str(second.id)
    box = boss.locator(f'[data-key="{first.id}"] input')
    box.check()
    boss.mouse.move(2, 2)
    third = ended()
    pill = boss.get_by_role("button", name="1 new")
    expect(pill).to_be_visible(timeout=10_000)
    expect(rows).to_have_count(2)
    expect(box).to_be_checked()
    pill.click()
    expect(rows).to_have_count(3)
    assert rows.first.get_attribute("data-key") == str(third.id)
    expect(box).to_be_checked()
    expect(boss.locator("[data-cq-chosen]")).to_have_text("With 1 ticked:")


def test_all_that_are_shown_are_ticked_at_once(site: Site, boss: Page) -> None:
    for _ in range(3):
        ended()
    boss.goto(f"{site.url}/cq/tasks/")
    all_of_them = boss.get_by_label("all that are shown")
    rows = boss.locator('input[name="task"]')
    all_of_them.check()
    expect(boss.locator("[data-cq-chosen]")).to_have_text("With 3 ticked:")
    rows.first.uncheck()
    assert all_of_them.evaluate("box => box.indeterminate")
    expect(boss.locator("[data-cq-chosen]")).to_have_text("With 2 ticked:")
    all_of_them.check()
    boss.get_by_role("button", name="Retry").click()
    expect(boss.get_by_role("heading", name="Retry 3 tasks?")).to_be_visible()


def test_typing_and_opened_details_survive_a_patch(site: Site, boss: Page) -> None:
    RepeatingTask.schedule("0 3 * * *", noop, name="nightly")
    boss.goto(f"{site.url}/cq/repeating/")
    boss.get_by_role("searchbox").fill("nigh")
    boss.get_by_text("Next five runs").click()
    RepeatingTask.objects.update(skipped=3)
    expect(boss.get_by_text("3 skipped")).to_be_visible(timeout=10_000)
    expect(boss.get_by_role("searchbox")).to_have_value("nigh")
    expect(boss.locator("ol.cq-next li").first).to_be_visible()


def test_a_paused_page_and_a_hidden_one_ask_nothing(site: Site, boss: Page) -> None:
    asked: list[Request] = []
    boss.on("request", lambda r: asked.append(r) if "x-cq-live" in r.headers else None)
    boss.goto(f"{site.url}/cq/")
    wait_until(lambda: (boss.wait_for_timeout(50), asked)[1], timeout=10)
    boss.keyboard.press("p")
    expect(boss.locator("button[data-cq-pill]")).to_have_text("paused")
    before = len(asked)
    boss.wait_for_timeout(2600)
    assert len(asked) == before
    boss.keyboard.press("p")
    wait_until(lambda: (boss.wait_for_timeout(50), len(asked) > before)[1], timeout=10)
    boss.evaluate(
        """Object.defineProperty(document, 'hidden', { get: () => window.away });
        window.away = true; document.dispatchEvent(new Event('visibilitychange'));"""
    )
    before = len(asked)
    boss.wait_for_timeout(2600)
    assert len(asked) == before
    boss.evaluate("window.away = false; document.dispatchEvent(new Event('visibilitychange'))")
    wait_until(lambda: (boss.wait_for_timeout(50), len(asked) > before)[1], timeout=10)


def test_who_is_logged_out_is_told_so_and_led_to_the_login(site: Site, boss: Page) -> None:
    boss.goto(f"{site.url}/cq/")
    Session.objects.all().delete()
    pill = boss.locator("button[data-cq-pill]")
    expect(pill).to_have_text("logged out", timeout=10_000)
    pill.click()
    boss.wait_for_url("**/login/**")


def test_the_keyboard_leads_everywhere(site: Site, boss: Page) -> None:
    boss.goto(f"{site.url}/cq/")
    boss.keyboard.press("g")
    boss.keyboard.press("t")
    boss.wait_for_url("**/cq/tasks/")
    boss.keyboard.press("/")
    boss.keyboard.type("state:failed g t p")
    expect(boss.get_by_role("searchbox")).to_be_focused()
    boss.keyboard.press("Enter")
    boss.wait_for_url("**/cq/tasks/?q=state**")
    boss.get_by_role("button", name="Theme").click()
    assert boss.evaluate("document.documentElement.dataset.theme") == "light"
    boss.reload()
    assert boss.evaluate("document.documentElement.dataset.theme") == "light"


def test_without_javascript_one_finds_ticks_and_retries(site: Site, browser: Browser) -> None:
    task = ended(error="boom")
    ended(status=Status.SUCCESS)
    context = browser.new_context(java_script_enabled=False)
    log_in(context, site)
    page = context.new_page()
    page.goto(f"{site.url}/cq/")
    page.get_by_role("link", name="Tasks").first.click()
    page.get_by_role("link", name="Failure").click()
    expect(page.locator("tbody tr")).to_have_count(1)
    page.get_by_role("checkbox").check()
    page.get_by_role("button", name="Retry").click()
    expect(page.get_by_role("heading", name="Retry 1 task?")).to_be_visible()
    page.get_by_role("button", name="Retry").click()
    expect(page.get_by_text("Retried 1 task.")).to_be_visible()
    task.refresh_from_db()
    assert task.status == Status.QUEUED
    context.close()


def test_hostile_names_stay_text_in_a_patch(site: Site, boss: Page) -> None:
    boss.goto(f"{site.url}/cq/tasks/")
    ended(func_name="<img src=x onerror=alert(1)>", error="<script>alert(2)</script>")
    name = boss.get_by_role("link", name="<img src=x onerror=alert(1)>")
    expect(name).to_be_visible(timeout=10_000)
    assert boss.locator("img[src=x]").count() == 0
