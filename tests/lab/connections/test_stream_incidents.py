"""Token streams of the lab against what tcpdump saw in the server's own namespace: within 2 ms or 1 %."""

from __future__ import annotations

import contextlib
import re
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from kubectl_genainet.lab.programs.streams import HEADER
from tests.lab.labtest import RunningLab, broken
from tests.lab.tracetest import Record, tracing

TARGET = "svc/my-llama-svc"
MS = 1_000_000
_LINE = re.compile(
    r"(\d+)\.(\d+) IP (\S+)\.(\d+) > (\S+)\.(\d+): Flags \[(\S+)\](?:, seq \d+(?::(\d+))?)?.*?, length (\d+)"
)


def near(told: int | None, true: int) -> bool:
    return told is not None and abs(told - true) <= max(2 * MS, true // 100)


@dataclass
class TrueStream:
    """A connection as the server's device saw it: (time in ns, bytes) of data, and its end."""

    asked: list[tuple[int, int]] = field(default_factory=list)
    sent: list[tuple[int, int]] = field(default_factory=list)
    opened: bool = False
    ended: str = ""
    behind: dict[bool, int] = field(
        default_factory=lambda: {False: 0, True: 0}
    )  # the last byte, by whether it is a reply's

    @property
    def silence(self) -> int:
        return max(b[0] - a[0] for a, b in pairwise(self.sent))


def read_capture(text: str, port: int) -> dict[tuple[str, int], TrueStream]:
    """Connections to the port, by the client's address and port."""
    found: dict[tuple[str, int], TrueStream] = defaultdict(TrueStream)
    for match in map(_LINE.match, text.splitlines()):
        if match is None:
            continue
        t_ns, length, flags = int(match[1]) * 10**9 + int(match[2]) * 1000, int(match[9]), match[7]
        from_server = int(match[4]) == port
        stream = found[(match[5], int(match[6])) if from_server else (match[3], int(match[4]))]
        stream.opened = stream.opened or flags == "S"
        if length and int(match[8]) > stream.behind[from_server]:  # what is sent again is no new data
            stream.behind[from_server] = int(match[8])
            (stream.sent if from_server else stream.asked).append((t_ns, length))
        if from_server and not stream.ended and ("F" in flags or "R" in flags):
            stream.ended = "reset" if "R" in flags else "fin"
    return found


@dataclass
class Capture:
    """Lines of tcpdump, as far as it has written them."""

    file: Path

    @property
    def text(self) -> str:
        return self.file.read_text()

    def wait_for(self, written: Callable[[str], bool]) -> None:
        """tcpdump may lag on a busy machine."""
        deadline = time.monotonic() + 30
        while not written(self.text) and time.monotonic() < deadline:
            time.sleep(0.2)


@contextlib.contextmanager
def captured(pod_netns: str, port: int) -> Iterator[Capture]:
    """What tcpdump sees of the port meanwhile."""
    command = ("tcpdump", "-i", "eth0", "-nn", "-tt", "-l", "-s", "96", "-B", "8192", f"tcp port {port}")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "packets.txt"
        with file.open("wb") as output:
            process = subprocess.Popen(
                ["ip", "netns", "exec", pod_netns, *command], stdout=output, stderr=subprocess.PIPE
            )
        assert process.stderr is not None
        for line in process.stderr:
            if b"listening on" in line:
                break
        try:
            yield Capture(file)
        finally:
            process.terminate()
            process.communicate(timeout=10)


def told_and_true(lab: RunningLab, incident: str, check: str, *, http: bool = False) -> list[tuple[Record, TrueStream]]:
    """The faulty pod's connections that a trace told as faulty, and as tcpdump saw them."""
    bad = lab.pods("my-llama-finetuned")[-1]
    options = ("--lab", lab.name, "--timeout", "300s", *(("--http",) if http else ()))
    with broken(lab, incident), captured(lab.pod_netns(bad), 8080) as capture:
        with tracing(TARGET, *options) as trace:
            trace.until(lambda p: check in {f["check"] for f in p["findings"]} and p["handshake_ns"] is not None)
            told = list(trace.paths)  # at the end of a trace, counters may be missing of what has just ended
            assert trace.stop() == 1
        faulty = [p for p in told if check in {f["check"] for f in p["findings"]}]
        assert {p["backend"]["pod"] for p in faulty} == {bad.metadata.name}
        assert check in {f["check"] for f in trace.summary["findings"]}
        capture.wait_for(lambda text: bool(_whole(faulty, text)))
        whole = _whole(faulty, capture.text)
        assert whole, capture.text[-2000:]
        return whole


def _whole(faulty: list[Record], text: str) -> list[tuple[Record, TrueStream]]:
    """The connections of which both the trace and tcpdump saw the start and the end."""
    true = read_capture(text, 8080)
    pairs = [(p, true[p["flow"]["client"]["ip"], p["flow"]["client"]["port"]]) for p in faulty]
    return [(p, t) for p, t in pairs if t.opened and p["handshake_ns"] is not None and t.ended]


def check_common(path: Record, true: TrueStream) -> None:
    stream = path["stream"]
    assert stream["request_bytes"] == sum(length for _, length in true.asked)
    assert stream["reply_bytes"] == sum(length for _, length in true.sent)
    assert near(stream["first_reply_ns"], true.sent[0][0] - true.asked[0][0])
    assert near(stream["silence"]["length_ns"], true.silence)
    assert (stream["ended"], stream["ended_by"]) == (true.ended, "server")


def test_stalled_stream_is_measured_as_it_was(lab: RunningLab) -> None:
    for path, true in told_and_true(lab, "stream-stall", "stream-stalled"):
        check_common(path, true)
        assert true.silence > 3_900 * MS and path["stream"]["silence"]["waited_for"] == "server"
        assert path["verdict"] == "forwarded"


def test_reset_stream_is_told_with_what_it_had_carried(lab: RunningLab) -> None:
    for path, true in told_and_true(lab, "stream-reset", "reset-by-app"):
        check_common(path, true)
        assert (path["verdict"], path["outcome"], true.ended) == ("reset", "reset", "reset")


def test_streams_that_end_early_are_told_by_their_bytes(lab: RunningLab) -> None:
    bad = lab.pods("my-llama-finetuned")[-1]
    with broken(lab, "stream-early-end"), captured(lab.pod_netns(bad), 8080) as capture:
        with tracing(TARGET, "--lab", lab.name, "--timeout", "20s") as trace:
            assert trace.stop(None, timeout=180) == 1
        found = [f for f in trace.summary["findings"] if f["check"] == "early-end"]
        capture.wait_for(lambda text: bool(read_capture(text, 8080)))
        true = [t for t in read_capture(capture.text, 8080).values() if t.opened and t.ended]
    sizes = {sum(length for _, length in stream.sent) for stream in true}
    assert {stream.ended for stream in true} == {"fin"} and len(sizes) == 1
    (title,) = [f["title"] for f in found]
    assert title.startswith(f"{bad.metadata.name} ends its streams early") and f"than {sizes.pop()} bytes," in title


def test_first_token_is_told_from_the_header_before_it(lab: RunningLab) -> None:
    for path, true in told_and_true(lab, "slow-first-token", "slow-first-token", http=True):
        check_common(path, true)
        assert true.sent[0][1] == len(HEADER)
        assert near(path["stream"]["next_reply_ns"], true.sent[1][0] - true.sent[0][0])
        http = path["http"]
        assert (http["method"], http["path"]) == ("POST", "/v1/chat/completions")
        assert (http["statuses"], http["content_type"]) == ({"200": 1}, "text/event-stream")
        assert near(http["first_body_ns"], true.sent[1][0] - true.asked[0][0])


def test_without_http_no_head_is_read(lab: RunningLab) -> None:
    with tracing(TARGET, "--lab", lab.name, "--timeout", "300s") as trace:
        path = trace.until(lambda p: p["stream"] is not None)
        trace.stop()
    assert path["http"] is None


def test_pinned_connection_is_named_with_its_share(lab: RunningLab) -> None:
    with broken(lab, "pinned-connections"), tracing(TARGET, "--lab", lab.name, "--timeout", "10s") as trace:
        assert trace.stop(None, timeout=180) == 1
    (found,) = [f for f in trace.summary["findings"] if f["check"] == "pinned-connection"]
    streams = [p for p in trace.paths if p["stream"] is not None]
    most = max(streams, key=lambda p: int(p["stream"]["request_bytes"]))
    share = most["stream"]["request_bytes"] / sum(p["stream"]["request_bytes"] for p in streams)
    assert f"{share:.0%}" in found["title"] and most["backend"]["pod"] in found["title"]
    assert most["stream"]["ended"] == "open" and share >= 0.8
    assert any("not known (TLS, or without --http)" in evidence["statement"] for evidence in found["evidence"])
