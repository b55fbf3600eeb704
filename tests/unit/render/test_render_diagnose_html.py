"""The diagnosis page in a real browser: axe's rules hold, nothing is fetched, hostile names stay text."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kubectl_genainet.diagnose.causes import Gathering
from kubectl_genainet.diagnose.felt import of_path
from kubectl_genainet.model.finding import Certainty, Evidence, Remedy
from kubectl_genainet.model.packet import Protocol
from kubectl_genainet.model.results.diagnosis import Checked, CheckState, Conclusion
from kubectl_genainet.model.results.path import Drop, Flow, Hop, Nat, PacketPath, Party, ServiceRef, Verdict
from kubectl_genainet.render.diagnose.document import document
from kubectl_genainet.render.document.html import html
from kubectl_genainet.render.document.model import way

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (make setup)")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
in_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine (make setup)")
HOSTILE = "</style><script>window.hacked=1</script><img src=x onerror=window.hacked=1>\u202egnp"

WORDS_UNDER_BARS = """Array.from(document.querySelectorAll("svg"), svg => {
    const within = (word, bar) => word.x < bar.x + bar.width && bar.x < word.x + word.width
        && word.y < bar.y + bar.height && bar.y < word.y + word.height;
    const bars = Array.from(svg.querySelectorAll("rect"), bar => bar.getBBox());
    const covered = label => bars.some(bar => within(label.getBBox(), bar));
    return Array.from(svg.querySelectorAll("text")).filter(covered).map(label => label.textContent);
}).flat()"""


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
    page = html(document(conclusion(path(), path(), path())), made="2026-01-02T03:04:05+00:00")
    way = [
        page.index(name)
        for name in ("ui-7f9-abc", "10.96.0.9:80", "KUBE-SVC-ABC → KUBE-SEP-DEF", "llm-5d-xyz", 'end-bad"')
    ]
    assert way == sorted(way)
    assert page.count("<rect ") == 3
    assert "second 4: 1" in page
    assert "kubectl apply -f -" in page and "2026-01-02T03:04:05+00:00" in page


@pytest.mark.parametrize(("verdict", "css"), [(Verdict.UNANSWERED, "end-bad"), (Verdict.FORWARDED, "end-good")])
def test_a_connection_that_failed_without_a_drop_ends_badly_too(verdict: Verdict, css: str) -> None:
    ended = msgspec.structs.replace(path(), drop=None, verdict=verdict)
    assert list(way(ended))[-1].css == css


def test_a_watch_without_a_cause_says_so() -> None:
    assert "No cause was found." in html(document(conclusion()))


BUNDLES = Path(__file__).parents[2] / "golden" / "bundles"
PAGES = {  # command -> the bundle that it replays, and what its page has
    "trace": ("mtu-blackhole.gnb", ("<svg", "The way of one connection", "Backends", "How long it took: handshake")),
    "drops": ("drops-mtu-blackhole.gnb", ("<svg", "dropped packets", "Flows")),
    "dns": ("dns-timeout.gnb", ("<svg", "DNS queries without an answer", "How long it took: DNS", "Servers")),
    "diagnose": ("policy-service-port.gnb", ("<svg", "failed connections", "What was checked", "Who calls it")),
    "rules": ("stale-endpoint.gnb", ("What is programmed", "10.244.")),
}


def report_of(command: str, folder: Path) -> Path:
    bundle, _ = PAGES[command]
    file = folder / f"{command}.html"
    target = () if command in ("dns", "drops") else ("svc/my-llama-svc",)
    everything = ("-A",) if command == "drops" else ()
    arguments = (command, *target, *everything, "--from", str(BUNDLES / bundle), "--report", str(file))
    done = subprocess.run([sys.executable, "-m", "kubectl_genainet", *arguments], capture_output=True, text=True)
    assert done.returncode in (0, 1) and f"report written to {file}" in done.stderr, done.stderr
    return file


@pytest.mark.parametrize("command", PAGES)
def test_every_command_writes_a_page(command: str, tmp_path: Path) -> None:
    page = report_of(command, tmp_path).read_text()
    assert [part for part in PAGES[command][1] if part not in page] == []
    assert "<script" not in page and "http://" not in page.replace("http://www.w3.org", "")


@pytest.mark.parametrize("command", PAGES)
def test_a_page_is_written_also_where_nobody_reads_the_text(command: str, tmp_path: Path) -> None:
    bundle, _ = PAGES[command]
    file = tmp_path / "page.html"
    arguments = (command, "svc/my-llama-svc", "--from", str(BUNDLES / bundle), "--report", str(file))
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-m", "kubectl_genainet", *arguments], stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert done.returncode == 0 and f"report written to {file}" in done.stderr.decode(), done.stderr
    assert file.read_text().rstrip().endswith("</html>")


@in_browser
def test_axe_finds_nothing_on_the_page_of_any_command(tmp_path: Path) -> None:
    files = [report_of(command, tmp_path) for command in PAGES]
    assert_accessible(files, "dark", {"width": 360, "height": 740})


def test_a_page_that_can_not_be_written_is_said_before_the_watch(tmp_path: Path) -> None:
    arguments = ("trace", "--from", str(BUNDLES / "healthy.gnb"), "--report", str(tmp_path / "none" / "x.html"))
    done = subprocess.run([sys.executable, "-m", "kubectl_genainet", *arguments], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "") and "there is no such folder" in done.stderr


@in_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [{"width": 360, "height": 740}, {"width": 1280, "height": 900}])
def test_axe_finds_nothing_and_nothing_runs_or_is_fetched(
    tmp_path: Path, scheme: str, viewport: dict[str, int]
) -> None:
    file = tmp_path / "report.html"
    file.write_text(html(document(conclusion(path(), path(HOSTILE)))), encoding="utf-8")
    assert_accessible([file], scheme, viewport)


def assert_accessible(files: list[Path], scheme: str, viewport: dict[str, int]) -> None:
    from axe_playwright_python.sync_playwright import Axe

    heard: list[str] = []
    own = {file.as_uri() for file in files}
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page: Any = browser.new_page(viewport=viewport, color_scheme=scheme)
        page.on("console", lambda message: heard.append(message.text))
        page.on("request", lambda request: heard.append(request.url) if request.url not in own else None)
        for file in files:
            page.goto(file.as_uri())
            assert page.evaluate("window.hacked") is None
            assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
            assert page.evaluate(WORDS_UNDER_BARS) == [], file
            assert heard == []
            response = Axe().run(page).response
            assert [v["id"] for v in response["violations"]] == [], file
            assert len(response["passes"]) > 15
        browser.close()
