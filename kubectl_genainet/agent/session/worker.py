"""The process of one session: reads its job, streams records to standard output, and takes the probes away with it.

Standard input: a Job as one JSON line, then one line for each change of the filters; its end is the session's end.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import signal
import sys
import threading

import msgspec

from kubectl_genainet.agent.session.job import Job
from kubectl_genainet.agent.session.session import Session
from kubectl_genainet.priority import give_way

_END = (signal.SIGTERM, signal.SIGINT)


def _end_when_asked(session: Session) -> None:
    signal.sigwait(_END)
    session.end("stopped")


def main() -> None:
    """Entry point of the worker process."""
    # A handler would run between any two steps of the main thread, also while that holds the lock that ending needs.
    signal.pthread_sigmask(signal.SIG_BLOCK, _END)
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: the session ends with the server, however that ends
    if os.getppid() == 1:
        return
    give_way()
    faulthandler.enable()  # where it crashes is said in the agent's log
    job = msgspec.json.decode(sys.stdin.buffer.readline(), type=Job)
    session = Session(job, sys.stdin.buffer, sys.stdout.fileno())
    threading.Thread(target=_end_when_asked, args=(session,), daemon=True).start()
    session.run()
    os._exit(0)  # a reader that is gone must not keep the outbox's thread, and so the process, alive


if __name__ == "__main__":
    main()
