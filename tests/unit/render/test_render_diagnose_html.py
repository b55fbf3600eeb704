"""The diagnosis page in a real browser: axe's rules hold, nothing is fetched, hostile names stay text."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from kubectl_genainet.diagnose.causes import Gathering
from kubectl_genainet.diagnose.felt import of_path
from kubectl_genainet.model.finding import Certainty, Evidence, Remedy
from kubectl_genainet.model.packet import Protocol
from kubectl_genainet.model.results.diagnosis import Checked, CheckState, Conclusion
from kubectl_genainet.model.results.path import Drop, Flow, Hop, Nat, PacketPath, Party, ServiceRef, Verdict
from kubectl_genainet.render.diagnose.html import html

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (make setup)")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
in_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine (make setup)")
HOSTILE = "</style><script>window.hacked=1</script><img src=x onerror=window.hacked=1>\u202egnp"


def path(client: str = "ui-7f9-abc") -> PacketPath:
    hops = tuple(
        Hop(node, None, device, point, 1000 * number, "10.244.1.2:4000", target)
        for number, (node, device, point, target) in enumerate(
            (
                ("node-1", "veth1", "rx", "10.96.0.9:80"),
                ("node-1", "eth0", "tx", "10.244.2.3:8080"),
                ("node-2", "eth0", "rx", "10.244.2.3:8080"),
            )
        )
    )
    drop = Drop(
        "NETFILTER_DROP",
        "nft_do_chain",
        "FORWARD",
        "eth0",
        "filter POD-1 rule 4: -j DROP",
        ("default/llm-ingress",),
        Certainty.DERIVED,
        node="node-2",
        explanation="default/llm is isolated for ingress by default/llm-ingress, and no rule admits TCP 8080",
        check="policy-drop",
        evidence=(Evidence("rule 4 of POD-1 ends the walk", Certainty.DERIVED),),
        remedy=Remedy("Admit the client.", command="kubectl apply -f -", yaml="kind: NetworkPolicy\nspec: {}\n"),
    )
    return PacketPath(
        flow=Flow(
            Party("10.244.1.2", 4000, "default", client, "node-1", "ui"),
            ServiceRef("default", "llm", 80, "http", "10.96.0.9"),
            Protocol.TCP,
        ),
        backend=Party("10.244.2.3", 8080, "default", "llm-5d-xyz", "node-2", "llm"),
        nat=Nat("iptables", "KUBE-SVC-ABC", "KUBE-SEP-DEF", Certainty.DERIVED),
        hops=hops,
        verdict=Verdict.DROPPED,
        drop=drop,
    )


def conclusion(*paths: PacketPath) -> Conclusion:
    gathering = Gathering()
    for second, one in enumerate(paths):
        for felt in of_path(one):
            gathering.add(felt, second * 2.0)
    return Conclusion(
        target="svc/llm",
        seconds=15.0,
        connections=len(paths),
        failed=len(paths),
        queries=4,
        causes=gathering.causes(),
        checked=(Checked("rules", CheckState.FINE, "they match"), Checked("mtu", CheckState.NOT_CHECKED, "not seen")),
        notes=("a caller was silent",),
        callers={"default/ui": len(paths)},
        next=("kubectl genainet trace svc/llm --exact",),
        nodes=("node-1", "node-2"),
        silent_nodes=(),
        lost=0,
    )


def test_the_way_ends_where_the_packet_died_and_each_second_has_its_bar() -> None:
    page = html(conclusion(path(), path(), path()), made="2026-01-02T03:04:05+00:00")
    way = [
        page.index(name)
        for name in ("ui-7f9-abc", "10.96.0.9:80", "KUBE-SVC-ABC → KUBE-SEP-DEF", "llm-5d-xyz", 'end-bad"')
    ]
    assert way == sorted(way)
    assert page.count("<rect ") == 3
    assert "second 4: 1" in page
    assert "kubectl apply -f -" in page and "2026-01-02T03:04:05+00:00" in page


def test_a_watch_without_a_cause_says_so() -> None:
    assert "No cause was found." in html(conclusion())


@in_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [{"width": 360, "height": 740}, {"width": 1280, "height": 900}])
def test_axe_finds_nothing_and_nothing_runs_or_is_fetched(
    tmp_path: Path, scheme: str, viewport: dict[str, int]
) -> None:
    from axe_playwright_python.sync_playwright import Axe

    file = tmp_path / "report.html"
    file.write_text(html(conclusion(path(), path(HOSTILE))), encoding="utf-8")
    heard: list[str] = []
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page: Any = browser.new_page(viewport=viewport, color_scheme=scheme)
        page.on("console", lambda message: heard.append(message.text))
        page.on("request", lambda request: heard.append(request.url) if request.url != file.as_uri() else None)
        page.goto(file.as_uri())
        assert page.evaluate("window.hacked") is None
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        assert heard == []
        response = Axe().run(page).response
        browser.close()
    assert [v["id"] for v in response["violations"]] == []
    assert len(response["passes"]) > 15
