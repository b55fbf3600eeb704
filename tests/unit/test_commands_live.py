"""Ctrl-C while packets are watched: never in the middle of a record."""

from __future__ import annotations

import signal

import pytest

from kubectl_genainet.commands.live import Interrupts


def test_ctrl_c_waits_until_a_record_is_taken_in() -> None:
    done = []
    with Interrupts() as interrupts:
        with pytest.raises(KeyboardInterrupt), interrupts.held():
            signal.raise_signal(signal.SIGINT)
            done.append("the rest of the record")
        with interrupts.held():
            done.append("the next record")
    assert done == ["the rest of the record", "the next record"]


def test_ctrl_c_between_records_and_a_second_one_interrupt_at_once() -> None:
    done = []
    with Interrupts() as interrupts:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt), interrupts.held():
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            done.append("never")
        with interrupts.held():
            done.append("what follows")
    assert done == ["what follows"]


def test_what_was_there_for_sigint_is_there_again() -> None:
    with Interrupts():
        assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    ignored = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Interrupts() as interrupts, interrupts.held():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, ignored)
