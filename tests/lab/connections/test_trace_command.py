"""`trace` as a command: recording and replay, exit statuses, errors, pipes, widths."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.lab.labtest import RunningLab, broken
from tests.lab.tracetest import COMMAND, copied_for_all, genainet, tracing

SERVICE = "svc/my-llama-svc"
# What a replay has to do without: the agent's libraries, and root.
PLAIN_PYTHON = """
import sys
for name in ("bcc", "pyroute2", "h11", "kubernetes"):
    sys.modules[name] = None
from kubectl_genainet.cli import main
sys.argv[0] = "kubectl-genainet"
main()
"""


@pytest.fixture(scope="module")
def recording(lab: RunningLab, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """(bundle, what the live run printed as JSON) of a trace that saw drops and what arrived."""
    bundle = tmp_path_factory.mktemp("bundle") / "incident.gnb"
    command = (SERVICE, "--lab", lab.name, "--timeout", "300s", "--record", str(bundle))
    with broken(lab, "mtu-blackhole"), tracing(*command) as trace:
        trace.until(lambda p: p["verdict"] == "dropped")
        trace.until(lambda p: p["verdict"] == "forwarded")
        assert trace.stop() == 1
        return bundle, trace.text


def test_replay_says_what_the_live_run_said(recording: tuple[Path, str]) -> None:
    bundle, live = recording
    replay = genainet("trace", SERVICE, "--from", str(bundle), "-o", "json")
    assert replay.returncode == 1
    assert replay.stdout == live
    assert "this is not live traffic" in replay.stderr


def test_replay_needs_neither_root_nor_the_agents_libraries(recording: tuple[Path, str], tmp_path: Path) -> None:
    bundle, live = recording
    if shutil.which("setpriv") is None:
        pytest.skip("setpriv (util-linux) is not installed")
    shared = Path(f"/tmp/genainet-test-{os.getpid()}")
    shared.mkdir()
    try:
        copy = copied_for_all(bundle, shared)
        nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs"]
        probe = subprocess.run(
            [*nobody, sys.executable, "-c", "import kubectl_genainet.cli"], capture_output=True, timeout=30
        )
        prefix = nobody if probe.returncode == 0 else []  # the checkout may be in a folder of root's alone
        command = [*prefix, sys.executable, "-c", PLAIN_PYTHON, "trace", SERVICE, "--from", str(copy), "-o", "json"]
        replay = subprocess.run(command, capture_output=True, text=True, timeout=180)
    finally:
        shutil.rmtree(shared)
    assert (replay.returncode, replay.stdout) == (1, live), replay.stderr


def test_replay_of_another_target_and_client(recording: tuple[Path, str], lab: RunningLab) -> None:
    bundle, live = recording
    client = lab.pods("chatbot-ui")[0].metadata.name
    replay = genainet("trace", SERVICE, "--from", str(bundle), "-o", "json", "--from-pod", client)
    mine = [
        r for r in map(json.loads, live.splitlines()) if r["kind"] == "path" and r["flow"]["client"]["pod"] == client
    ]
    assert [r for r in map(json.loads, replay.stdout.splitlines()) if r["kind"] == "path"] == mine


def test_narrow_and_plain_trees_fit(recording: tuple[Path, str]) -> None:
    bundle, _ = recording
    for columns in (60, 100, 160):
        done = genainet("trace", SERVICE, "--from", str(bundle), environment={"COLUMNS": str(columns)})
        lines = done.stdout.splitlines()
        assert max(map(len, lines)) <= columns, max(lines, key=len)
        assert "\x1b" not in done.stdout
        assert "PKT_TOO_BIG" in done.stdout and "FORWARDED" in done.stdout


def test_colour_is_for_terminals_and_no_color_wins(recording: tuple[Path, str]) -> None:
    bundle, _ = recording
    command = [*COMMAND, "trace", SERVICE, "--from", str(bundle)]
    for environment, colour in (({}, True), ({"NO_COLOR": "1"}, False)):
        text = in_terminal(command, environment)
        assert (
            "\x1b[" in text and "m" in text and any(c in text for c in ("\x1b[31", "\x1b[1;31", "\x1b[32"))
        ) is colour
        assert "PKT_TOO_BIG" in text


def in_terminal(command: list[str], environment: dict[str, str]) -> str:
    """What the command writes to a terminal of 120 columns."""
    import fcntl
    import pty
    import struct
    import termios

    main, side = pty.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 120, 0, 0))
    env = (
        {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "COLUMNS")}
        | {"TERM": "xterm-256color"}
        | environment
    )
    process = subprocess.Popen(command, stdout=side, stderr=subprocess.DEVNULL, env=env)
    os.close(side)
    text = b""
    try:
        while data := os.read(main, 65536):
            text += data
    except OSError:  # EIO: the other side has closed
        pass
    finally:
        os.close(main)
        process.wait(30)
    return text.decode()


def test_reader_that_goes_away_is_no_error(recording: tuple[Path, str]) -> None:
    bundle, _ = recording
    for output in ("json", "tree", "wide"):
        process = subprocess.Popen(
            [*COMMAND, "trace", SERVICE, "--from", str(bundle), "-o", output],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        errors = process.stderr.read().decode()
        process.stderr.close()
        assert process.wait(30) in (0, 1)
        assert "Traceback" not in errors and "BrokenPipe" not in errors


def test_nothing_seen_in_time_is_124(lab: RunningLab) -> None:
    done = genainet("trace", "203.0.113.99:9", "--lab", lab.name, "--timeout", "500ms", "-o", "json", timeout=180)
    assert done.returncode == 124
    (summary,) = map(json.loads, done.stdout.splitlines())
    assert summary["connections"] == 0 and summary["nodes"] == ["node-1", "node-2", "node-3"]
    assert summary["events"] == {"emitted": 0, "received": 0, "lost": 0}
    assert "no new connection to 203.0.113.99:9 was seen" in done.stderr
    assert f"kubectl genainet diagnose 203.0.113.99:9 --lab {lab.name}" in " ".join(done.stderr.split())


def test_ctrl_c_ends_with_the_accounts_of_every_agent(lab: RunningLab) -> None:
    with tracing(SERVICE, "--lab", lab.name, "--timeout", "300s") as trace:
        trace.until(lambda _: True)
        status = trace.stop(signal.SIGINT)
    # On a machine that is busy with other things a backend may be slow indeed: the status says whether anything was found.
    assert status == (1 if trace.summary["findings"] else 0), trace.summary
    assert trace.summary["silent_nodes"] == []
    events = trace.summary["events"]
    assert events["emitted"] == events["received"] + events["lost"] and events["received"] > 0
    assert not any("Traceback" in line for line in trace.errors)


def test_all_nodes_watch_for_the_time_that_was_asked_for_however_late_one_begins(lab: RunningLab) -> None:
    timeout_s, late = 4.0, "node-2"
    agent = lab.record.pids[f"agent/{late}"]
    os.kill(agent, signal.SIGSTOP)
    with tracing(SERVICE, "--lab", lab.name, "--timeout", f"{timeout_s}s") as trace:
        try:
            trace.until(lambda _: True)  # of the nodes that watch already
            time.sleep(timeout_s + 1)
        finally:
            os.kill(agent, signal.SIGCONT)
        trace.stop(None)
    between = [p for p in trace.paths if late in (nodes := {h["node"] for h in p["hops"]}) and len(nodes) > 1]
    assert between, trace.summary


def test_one_node_sees_its_own_hops_only(lab: RunningLab) -> None:
    node = lab.pods("chatbot-ui")[0].spec.node_name
    with tracing(SERVICE, "--lab", lab.name, "--timeout", "300s", "--node", node) as trace:
        path = trace.until(lambda p: p["flow"]["service"] is not None)
        trace.stop()
    assert {h["node"] for p in trace.paths for h in p["hops"]} == {node}
    assert path["flow"]["client"]["node"] == node
    assert trace.summary["nodes"] == [node]
    wrong = genainet("trace", SERVICE, "--lab", lab.name, "--node", "node-9", "--timeout", "1s")
    assert wrong.returncode == 2 and all(name in wrong.stderr for name in lab.record.nodes)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("svc/my-lama-svc",), "Did you mean my-llama-svc?"),
        (("svc/my-llama-svc:9999",), "Its ports are 80 (http)."),
        (("pod/chatbot-ui",), "Did you mean chatbot-ui-"),
        (("deploy/chatbotui",), "Did you mean chatbot-ui?"),
        (("my-llama-svc",), "Did you mean svc/my-llama-svc, pod/my-llama-svc or deploy/my-llama-svc?"),
        (("what/ever",), "Did you mean pod/what/ever, svc/what/ever or deploy/what/ever"),
        (("what/ever/it/is",), "Targets are svc/NAME[:PORT]"),
        (("svc/kube-dns",), "no Service 'kube-dns' in namespace default"),
        ((SERVICE, "--from-pod", "pod/chatbot-ux"), "Did you mean chatbot-ui-"),
        ((SERVICE, "--from-pod", "svc/chatbot-ui"), "--from-pod takes a pod"),
        ((SERVICE, "--check"), "--check needs --from-pod"),
        ((SERVICE, "--path", "/healthz"), "--path goes with --check"),
        ((SERVICE, "--timeout", "soon"), "is not a duration"),
        ((SERVICE, "--from", "/nonexistent.gnb"), "exclude each other"),
    ],
)
def test_wrong_arguments_are_named_with_what_would_be_right(
    lab: RunningLab, arguments: tuple[str, ...], says: str
) -> None:
    done = genainet("trace", *arguments, "--lab", lab.name)
    assert done.returncode == 2
    assert says in " ".join(done.stderr.split())
    assert done.stdout == "" and "Traceback" not in done.stderr


def test_lab_that_is_not_there_is_an_error(lab: RunningLab) -> None:
    done = genainet("trace", SERVICE, "--lab", "nosuchlab")
    assert done.returncode == 2 and "there is no lab 'nosuchlab'" in done.stderr and lab.name in done.stderr


def test_damaged_and_newer_bundles_are_named(recording: tuple[Path, str], tmp_path: Path) -> None:
    bundle, _ = recording
    cut = tmp_path / "cut.gnb"
    cut.write_bytes(bundle.read_bytes()[:-500])
    done = genainet("trace", SERVICE, "--from", str(cut))
    assert done.returncode == 2 and "is damaged or cut short" in done.stderr and "Traceback" not in done.stderr
