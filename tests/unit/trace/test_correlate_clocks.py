"""Clocks of nodes that share no kernel, put on one time line from packets that crossed both ways."""

from hypothesis import given
from hypothesis import strategies as st

from kubectl_genainet.context.clocks import Clocks, Offset

DELAYS = st.lists(st.integers(0, 50_000_000), min_size=1, max_size=20)
OFFSETS = st.integers(-(10**15), 10**15)


def crossed(clocks: Clocks, offset: int, there: list[int], back: list[int]) -> None:
    """Packets with these delays; node b's clock is `offset` ahead of node a's."""
    for i, delay in enumerate(there):
        clocks.crossed("a", i * 1000, "b", i * 1000 + delay + offset)
    for i, delay in enumerate(back):
        clocks.crossed("b", i * 1000 + offset, "a", i * 1000 + delay)


@given(OFFSETS, DELAYS, DELAYS)
def test_offset_is_found_within_the_stated_uncertainty(offset: int, there: list[int], back: list[int]) -> None:
    clocks = Clocks()
    crossed(clocks, offset, there, back)
    found, other_way = clocks.offset("b", "a"), clocks.offset("a", "b")
    assert found is not None and other_way is not None
    assert abs(found.add_ns + offset) <= found.error_ns
    assert abs(other_way.add_ns - offset) <= other_way.error_ns
    assert found.error_ns <= (min(there) + min(back) + 1) // 2  # no wider than what was seen


@given(OFFSETS, DELAYS, DELAYS, DELAYS)
def test_more_packets_never_widen_the_uncertainty(
    offset: int, there: list[int], back: list[int], more: list[int]
) -> None:
    clocks = Clocks()
    crossed(clocks, offset, there, back)
    first = clocks.offset("b", "a")
    crossed(clocks, offset, more, more)
    second = clocks.offset("b", "a")
    assert first is not None and second is not None and second.error_ns <= first.error_ns


def test_one_direction_bounds_nothing() -> None:
    clocks = Clocks()
    crossed(clocks, 5, [100], [])
    assert clocks.offset("b", "a") is None and clocks.offset("a", "b") is None
    crossed(clocks, 5, [], [100])
    assert clocks.offset("b", "a") == Offset(-5, 100)


def test_nodes_of_one_kernel_share_a_clock() -> None:
    clocks = Clocks()
    for node in ("a", "b"):
        clocks.learn(node, "boot-1")
    clocks.learn("c", "boot-2")
    assert clocks.offset("a", "b") == Offset(0, 0) and clocks.offset("a", "a") == Offset(0, 0)
    assert clocks.offset("a", "c") is None
    assert not clocks.same("a", "unheard of") and clocks.same("unheard of", "unheard of")
