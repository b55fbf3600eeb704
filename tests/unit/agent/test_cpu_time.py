"""What a thread has spent: its own time and that of its commands, of no other's."""

from __future__ import annotations

import sys
import threading
import time

from kubectl_genainet.agent.node.cpu_time import spent_s
from kubectl_genainet.agent.node.rulesets import _run

BURN = (sys.executable, "-c", "import time\nwhile time.process_time() < 0.3: pass")


def test_a_command_is_charged_to_the_thread_that_ran_it_and_to_no_other() -> None:
    spent: dict[str, float] = {}
    begin, end = threading.Barrier(2), threading.Barrier(2)

    def runs() -> None:
        begin.wait(60)
        before = spent_s()
        assert _run(BURN) == ("", "")
        spent["runs"] = spent_s() - before
        end.wait(60)

    def looks_on() -> None:
        begin.wait(60)
        before = spent_s()
        end.wait(60)
        spent["looks on"] = spent_s() - before

    threads = [threading.Thread(target=target) for target in (runs, looks_on)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert spent["runs"] >= 0.25
    assert spent["looks on"] < 0.2


def test_time_that_passes_is_not_spent() -> None:
    before = spent_s()
    time.sleep(0.3)
    assert spent_s() - before < 0.2
