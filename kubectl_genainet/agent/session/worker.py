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


def end_signals() -> int:
    """From now on SIGTERM and SIGINT end nothing; each writes a byte to the descriptor that is returned.

    A handler of Python's would run between any two steps of the main thread, also while that holds the lock that ending
    needs: here it does nothing. They are not blocked, since the commands that the process runs would inherit that.
    """
    readable, writable = os.pipe()
    os.set_blocking(writable, False)
    signal.set_wakeup_fd(writable, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    return readable


def _end_when_asked(session: Session, signals: int) -> None:
    os.read(signals, 1)
    session.end("stopped")


def main() -> None:
    """Entry point of the worker process."""
    signals = end_signals()
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: the session ends with the server, however that ends
    if os.getppid() == 1:
        return
    give_way()
    faulthandler.enable()  # where it crashes is said in the agent's log
    job = msgspec.json.decode(sys.stdin.buffer.readline(), type=Job)
    session = Session(job, sys.stdin.buffer, sys.stdout.fileno())
    threading.Thread(target=_end_when_asked, args=(session, signals), daemon=True).start()
    session.run()
    os._exit(0)  # a reader that is gone must not keep the outbox's thread, and so the process, alive


if __name__ == "__main__":
    main()
