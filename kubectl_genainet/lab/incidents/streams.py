"""Incidents of token streams: the model's pods answer with server-sent events, and one of them misbehaves.

What every stream really did is in the lab's log/streams.log, one JSON object a line.
"""

from __future__ import annotations

from typing import Any

from kubectl_genainet.lab.change import Lab
from kubectl_genainet.lab.incidents import Cause, Expected, Symptom, incident, restore
from kubectl_genainet.lab.incidents.backends import sound_pod
from kubectl_genainet.lab.incidents.policies import CHATBOT, LLAMA
from kubectl_genainet.lab.programs import start as programs
from kubectl_genainet.lab.state import Memo
from kubectl_genainet.model.results.path import Verdict

STALL_MS, FIRST_MS, END_AFTER = 4000, 3000, 3
HELD_URL, HELD_RATE = "http://my-llama-svc/v1/chat/completions", 40


def _streaming(lab: Lab, memo: Memo, **fault: Any) -> None:
    """Has all pods of the model stream, one of them with a fault."""
    faulty = sound_pod(lab)
    for pod in lab.pods_of(LLAMA):
        memo.behaviours[programs.member_key(pod)] = {"stream": fault if pod is faulty else {}}
    lab.sync()


@incident(
    "stream-stall",
    Expected(Verdict.FORWARDED),
    Cause("stream-stalled", "of silence in the middle of its reply", watch_s=16),
    felt=Symptom.CUT_SHORT,
    clear=restore,
)
def stream_stall(lab: Lab, memo: Memo) -> None:
    """One pod of the model stops for 4 s in the middle of its token streams.

    Fault: the my-llama-finetuned pods answer with 20 tokens, one every 50 ms; one of them sends nothing for 4 s after its
    tenth.
    Diagnosis: nothing is dropped and nothing is sent again; replies of that pod have a silence of 4 s in their middle, which
    shows as it leaves the pod already. The network is not at fault.
    """
    _streaming(lab, memo, stall_after=10, stall_ms=STALL_MS)


@incident(
    "stream-reset",
    Expected(Verdict.FORWARDED),
    Cause("reset-by-app", "midway through its answer"),
    felt=Symptom.CUT_SHORT,
    clear=restore,
)
def stream_reset(lab: Lab, memo: Memo) -> None:
    """One pod of the model resets its token streams midway.

    Fault: the my-llama-finetuned pods answer with 20 tokens, one every 50 ms; one of them resets the connection after its
    tenth.
    Diagnosis: the reply begins in order, and a RST that no packet provoked comes from the application's socket midway
    through it. No rule and no closed port sent it.
    """
    _streaming(lab, memo, reset_after=10)


@incident(
    "stream-early-end",
    Expected(Verdict.FORWARDED),
    Cause("early-end", "ends its streams early", watch_s=24),
    felt=Symptom.CUT_SHORT,
    clear=restore,
)
def stream_early_end(lab: Lab, memo: Memo) -> None:
    """One pod of the model closes its token streams after a few tokens.

    Fault: the my-llama-finetuned pods answer with 20 tokens, one every 50 ms; one of them closes the connection, in order, after
    its third.
    Diagnosis: nothing is dropped, nothing is reset, and every reply ends with a FIN of the server; those of one pod carry a
    fraction of the bytes of the others.
    """
    _streaming(lab, memo, end_after=END_AFTER)


@incident(
    "slow-first-token",
    Expected(Verdict.FORWARDED),
    Cause("slow-first-token", "after the first piece of its reply nothing came for", watch_s=16),
    felt=Symptom.SLOW,
    clear=restore,
)
def slow_first_token(lab: Lab, memo: Memo) -> None:
    """One pod of the model sends its response header at once and its first token 3 s later.

    Fault: the my-llama-finetuned pods answer with a header and 20 tokens, one every 50 ms; one of them waits 3 s after its
    header.
    Diagnosis: nothing is dropped; the first reply data of that pod comes as quickly as of the others, the next 3 s later.
    """
    _streaming(lab, memo, first_ms=FIRST_MS)


@incident(
    "pinned-connections",
    Expected(Verdict.FORWARDED),
    Cause("pinned-connection", "one connection carries"),
    felt=Symptom.SLOW,
    clear=restore,
)
def pinned_connections(lab: Lab, memo: Memo) -> None:
    """One client keeps one connection and asks most of all on it: one pod of the model has all the work.

    Fault: a chatbot-ui pod sends 40 requests a second on one connection, as HTTP/2 and gRPC clients do; all others open one
    for each request.
    Diagnosis: connections are spread over the pods, bytes are not: one connection carries most of what my-llama-svc is
    asked.
    """
    pod = lab.pods_of(CHATBOT)[0]
    memo.behaviours[programs.member_key(pod)] = {"hold": HELD_URL, "hold_rate": HELD_RATE}
    lab.sync()
