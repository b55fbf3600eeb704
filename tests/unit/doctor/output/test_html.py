"""The HTML report in a real browser: it renders, filters, stands axe's rules, and hostile names stay text."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kubectl_genainet.render.doctor.html import html
from tests.unit.doctor.worlds.clusters import eks, kubeadm
from tests.unit.doctor.worlds.world import NS, World, meta

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (make setup)")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine (make setup)")
PHONE, DESKTOP = {"width": 360, "height": 740}, {"width": 1280, "height": 900}
HOSTILE = (
    "</title></script><script>window.hacked=1</script><img src=x onerror=window.hacked=1>\"'`{{7*7}}\u202egnp.\x1b[31m"
)


def faulty() -> World:
    """A world with findings in several areas and of every severity."""
    world = eks()
    world.get("Service", "qdrant")["spec"]["selector"] = {"app.kubernetes.io/name": "qdrnt"}
    world.get("Service", "chatbot-ui")["metadata"]["annotations"].popitem()
    world.get("ConfigMap", "coredns", "kube-system")["data"]["Corefile"] = ".:53 {\n  forward . 1.1.1.1\n}\n"
    del world.get("Service", "my-llama-svc")["spec"]["trafficDistribution"]
    return world


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage"]
    with playwright.sync_playwright() as started:
        running = started.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield running
        running.close()


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Iterator[Any]:
    """Opens a report; whatever its page requested, logged or threw is in `page.heard`."""
    contexts: list[Any] = []

    def open_report(world: World, viewport: dict[str, int] = DESKTOP, **options: Any) -> Any:
        file = tmp_path / f"report-{len(contexts)}.html"
        file.write_text(html(world.report()), encoding="utf-8")
        context = browser.new_context(viewport=viewport, **options)
        contexts.append(context)
        page = context.new_page()
        page.heard = []
        page.on("pageerror", lambda error: page.heard.append(f"error: {error}"))
        page.on("console", lambda message: page.heard.append(f"console: {message.text}"))
        page.on("dialog", lambda dialog: (page.heard.append("dialog"), dialog.dismiss()))
        page.on("request", lambda request: page.heard.append(request.url) if request.url != file.as_uri() else None)
        page.goto(file.as_uri())
        return page

    yield open_report
    for context in contexts:
        context.close()


def test_the_page_loads_nothing_else_and_throws_nothing(opened: Any) -> None:
    page = opened(faulty())
    assert page.heard == []
    assert page.locator("article.finding").count() == 7
    assert "7 of 7 findings shown" in page.locator("#shown").inner_text()


def test_a_severity_can_be_filtered_out(opened: Any) -> None:
    page = opened(faulty())
    page.get_by_label("warning").uncheck()
    shown = page.locator("article.finding:visible")
    assert {shown.nth(i).get_attribute("data-severity") for i in range(shown.count())} == {"error", "info"}
    assert page.locator("#area-nlb").is_hidden()


def test_an_area_and_words_narrow_the_findings(opened: Any) -> None:
    page = opened(faulty())
    page.get_by_label("Area").select_option("coredns")
    assert page.locator("article.finding:visible").count() == 3
    page.get_by_label("Text").fill("prometheus coredns")
    assert page.locator("article.finding:visible").count() == 1
    page.get_by_label("Text").fill("no such words")
    assert page.locator("#shown").inner_text() == "0 of 7 findings shown"
    assert page.heard == []


# What depends on the colours, and what on the width; all other rules of axe look at the document, which is the same.
BY_COLOUR = {"runOnly": {"type": "rule", "values": ["color-contrast"]}}
BY_WIDTH = {"runOnly": {"type": "rule", "values": ["target-size", "scrollable-region-focusable"]}}


@pytest.mark.parametrize(
    ("scheme", "viewport", "options"),
    [("light", DESKTOP, None), ("light", PHONE, BY_WIDTH), ("dark", DESKTOP, BY_COLOUR)],
    ids=["light-desktop", "light-phone", "dark-desktop"],
)
def test_axe_finds_nothing(opened: Any, scheme: str, viewport: dict[str, int], options: Any) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page = opened(faulty(), viewport, color_scheme=scheme, bypass_csp=True)
    page.evaluate("document.querySelectorAll('details').forEach((d) => d.open = true)")
    response = Axe().run(page, options=options).response
    assert [(v["id"], [n["html"] for n in v["nodes"]]) for v in response["violations"]] == []
    assert len(response["passes"]) > (20 if options is None else 0)


@pytest.mark.parametrize("world", [faulty, kubeadm])
def test_nothing_sticks_out_of_a_phone(opened: Any, world: Any) -> None:
    page = opened(world(), PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    cut = "[...document.querySelectorAll('pre')].filter((e) => e.scrollWidth > e.clientWidth).length"
    assert page.evaluate(cut) == 0


def test_print_leaves_the_filter_out_and_shows_commands_whole(opened: Any) -> None:
    page = opened(faulty())
    page.emulate_media(media="print")
    assert page.locator("#filter").is_hidden()
    assert page.locator("pre").first.evaluate("e => e.scrollWidth <= e.clientWidth")


def test_the_picture_names_every_box_and_what_fails_there(opened: Any) -> None:
    page = opened(faulty())
    names = page.locator("svg.picture .name").all_text_contents()
    assert sorted(names) == sorted(
        ["chatbot-ui", "chatbot-ui", "rag-app", "rag-app", "my-llama-svc", "my-llama-finetuned", "qdrant", "qdrant"]
    )
    assert page.locator("svg.picture .sev-error .failing").all_text_contents() == ["service-selector"]


def test_hostile_names_stay_text(opened: Any) -> None:
    world = faulty()
    world.add(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": meta(HOSTILE, NS),
            "spec": {"type": "ExternalName", "externalName": "10.0.0.1", "ports": [{"name": HOSTILE, "port": 80}]},
        }
    )
    env = world.spec("Deployment", "rag-app")["containers"][0]["env"]
    env.append({"name": HOSTILE, "value": f"https://api.hostile.test/{HOSTILE}"})
    world.get("Node", "ip-10-0-1-10.ec2.internal", "")["metadata"]["labels"][HOSTILE] = HOSTILE
    page = opened(world)
    assert page.heard == []
    assert page.evaluate("window.hacked") is None
    assert page.evaluate("document.scripts.length") == 1
    assert page.locator("img").count() == 0
    text = page.locator("body").inner_text()
    assert "<script>window.hacked=1</script>" in text
    assert "{{7*7}}" in text
    assert "\u202e" not in page.content()
    assert "\\u202e" in text


def test_a_sound_cluster_says_so_and_has_nothing_to_filter(opened: Any) -> None:
    page = opened(kubeadm())
    assert "No check found anything wrong" in page.locator("#findings").inner_text()
    assert page.locator("#filter").count() == 0
    assert page.heard == []
