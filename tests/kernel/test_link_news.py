"""News of a namespace's devices: those that come and go, and nothing else."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator

import pytest

from kubectl_genainet.agent.session.link_news import LinkNews
from kubectl_genainet.lab.datapath import netns

NAME, OTHER = f"gnk-links-{os.getpid()}", f"gnk-links-pod-{os.getpid()}"


@pytest.fixture
def news() -> Iterator[LinkNews]:
    netns.create([NAME, OTHER])
    try:
        with LinkNews(f"/run/netns/{NAME}") as news:
            yield news
    finally:
        netns.remove(NAME)
        netns.remove(OTHER)


def ip(*arguments: str) -> None:
    subprocess.run(["ip", "-n", NAME, *arguments], check=True, timeout=10)


def test_a_pods_device_is_news_when_it_comes_and_when_it_goes(news: LinkNews) -> None:
    stop = threading.Event()
    assert not news.wait(stop, 0)
    ip("link", "add", "veth1", "type", "veth", "peer", "name", "eth0", "netns", OTHER)
    assert news.wait(stop, 10)
    ip("link", "set", "veth1", "up")
    ip("addr", "add", "10.99.0.1/24", "dev", "veth1")
    assert not news.wait(stop, 0)
    ip("link", "del", "veth1")
    assert news.wait(stop, 10)


def test_a_device_that_moves_into_a_pod_is_news_too(news: LinkNews) -> None:
    stop = threading.Event()
    ip("link", "add", "veth1", "type", "veth", "peer", "name", "eth0")
    assert news.wait(stop, 10)
    ip("link", "set", "eth0", "netns", OTHER)
    assert news.wait(stop, 10)


def test_what_is_stopped_waits_for_nothing(news: LinkNews) -> None:
    stop = threading.Event()
    stop.set()
    ip("link", "add", "veth1", "type", "veth")
    assert not news.wait(stop, 3600)
