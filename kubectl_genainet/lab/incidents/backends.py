"""Incidents of the programs behind a Service. One pod of the model misbehaves, the others do not."""

from __future__ import annotations

from typing import Any

from kubectl_genainet.lab.api.objects import Object
from kubectl_genainet.lab.change import Lab
from kubectl_genainet.lab.incidents import Cause, Expected, Symptom, incident, restore
from kubectl_genainet.lab.incidents.policies import LLAMA
from kubectl_genainet.lab.programs import start as programs
from kubectl_genainet.lab.state import Memo
from kubectl_genainet.model.results.path import Verdict

SLOW_MS = 800


def sound_pod(lab: Lab) -> Object:
    """The last pod of the model whose program no other incident has changed, so that both are felt; without one, the last."""
    pods = lab.pods_of(LLAMA)
    faulty = {
        pod for memo in lab.record.incidents.values() for pod, how in memo.behaviours.items() if any(how.values())
    }
    return next((pod for pod in reversed(pods) if programs.member_key(pod) not in faulty), pods[-1])


def _one_pod(lab: Lab, memo: Memo, behaviour: dict[str, Any]) -> None:
    memo.behaviours[programs.member_key(sound_pod(lab))] = behaviour
    lab.sync()


@incident(
    "slow-backend",
    Expected(Verdict.FORWARDED),
    Cause("slow-backend", "answers slowly"),
    felt=Symptom.SLOW,
    clear=restore,
)
def slow_backend(lab: Lab, memo: Memo) -> None:
    """One pod of the model takes its time before it answers.

    Fault: one my-llama-finetuned pod waits 800 ms before each response.
    Diagnosis: nothing is dropped; handshakes with that backend are as quick as with the others, its first response
    byte comes 800 ms after the request. The network is not at fault.
    """
    _one_pod(lab, memo, {"delay_ms": SLOW_MS})


@incident(
    "reset-by-app",
    Expected(Verdict.FORWARDED),
    Cause("reset-by-app", "reset the connection after the handshake"),
    felt=Symptom.RESET,
    clear=restore,
)
def reset_by_app(lab: Lab, memo: Memo) -> None:
    """One pod of the model closes connections with a RST instead of an answer.

    Fault: the program of one my-llama-finetuned pod resets each connection once it has read the request.
    Diagnosis: the handshake succeeds and a RST comes from the application's socket (tracepoint tcp:tcp_send_reset,
    without a packet that provoked it). No rule and no closed port sent it.
    """
    _one_pod(lab, memo, {"reset": True})


@incident(
    "listen-overflow",
    Expected(Verdict.DROPPED, counter="TcpExt:ListenOverflows"),
    Cause("listen-overflow", "listen queue of pod default/my-llama-finetuned"),
    felt=Symptom.HANGS,
    clear=restore,
)
def listen_overflow(lab: Lab, memo: Memo) -> None:
    """One pod of the model does not accept connections, and its listen queue is full.

    Fault: the program of one my-llama-finetuned pod listens with a queue of one and never calls accept (all its
    workers hang). Its readiness probe has not failed yet.
    Diagnosis: the first connection is established and never answered; the SYNs of the others arrive in the pod's
    namespace and get no answer, so their clients repeat them. The kernel consumes such a SYN (tcp_conn_request), which
    skb:kfree_skb does not report: TcpExt ListenOverflows and ListenDrops of the pod's namespace count them, and its
    listening socket has a full queue. The reason TCP_LISTEN_OVERFLOW shows only where it fills up between SYN and ACK.
    """
    _one_pod(lab, memo, {"stall": True})
