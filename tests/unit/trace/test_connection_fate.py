"""What became of a connection, where more than one packet has to be looked at to tell."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from kubectl_genainet.model.events import Event, FlowCounters, PacketSeen, Progress
from kubectl_genainet.model.finding import Certainty, Severity
from kubectl_genainet.model.node import NetnsRules, NodeReport, RulesetDump
from kubectl_genainet.model.results.path import ConnectionOutcome, PacketPath, Verdict
from kubectl_genainet.trace.streaming.measure import gap_quantile
from tests.unit.trace.test_connection_life import DATA, MS, counted, exchange, fins
from tests.unit.trace_world import BACKEND, CLIENT, HOST, RST, SECOND, SERVICE, World

T = 1000 * SECOND
OTHER = "10.244.2.9"  # another backend of the Service


def test_syn_ack_that_died_where_it_was_made_is_the_drop() -> None:
    world = World()
    made = world.reply(40000, T + MS)[0]  # no device was reached
    events: list[Event] = [
        *world.request(40000, T),
        world.dropped(made, "NETFILTER_DROP", "OUTPUT", location="nft_do_chain"),
    ]
    (path,) = world.tell(events)
    assert (path.verdict, path.outcome) == (Verdict.DROPPED, ConnectionOutcome.DROPPED)
    assert path.drop is not None and path.drop.hook == "OUTPUT" and "SYN-ACK was dropped" in path.waited


def test_packet_that_comes_by_again_is_one_packet_in_a_circle() -> None:
    world = World()
    events: list[Event] = []
    for lap in range(4):
        events += world.request(40000, T + lap * MS)[2:4]  # between two nodes, with one IP id
    (path,) = world.tell(events)
    assert path.attempts == 1 and len(path.hops) == 2
    (loop,) = [f for f in path.findings if f.check == "routing-loop"]
    assert "4 times" in loop.title


def test_syns_of_one_ip_id_are_no_circle_where_no_router_has_lowered_their_ttl() -> None:
    """As a scanner or a test sends them, within a second."""
    world = World()

    def lap(number: int, ttl: int) -> list[PacketSeen]:
        return [msgspec.structs.replace(s, ttl=ttl) for s in world.request(40000, T + number * MS)[2:4]]

    (again,) = world.tell(lap(0, 63), lap(1, 63), lap(2, 63))
    assert again.attempts == 3 and all(f.check != "routing-loop" for f in again.findings)
    (loop,) = World().tell(lap(0, 63), lap(1, 61), lap(2, 59))
    assert loop.attempts == 1 and any(f.check == "routing-loop" for f in loop.findings)


def test_syns_sent_again_are_no_circle() -> None:
    world = World()
    (path,) = world.tell(world.request(40000, T), world.request(40000, T + SECOND, ip_id=8))
    assert path.attempts == 2 and all(f.check != "routing-loop" for f in path.findings)


def moved_to_another_backend(world: World) -> list[Event]:
    """Data of a connection that is known, on its way to a backend that is not its own; its TCP answers with a reset."""
    world.correlator.connections.servers.add((OTHER, 8080))
    flow = msgspec.structs.replace(world.ends(40000)[1], dst=OTHER)
    data = [
        msgspec.structs.replace(e, flow=flow) for e in world.request(40000, T + 9 * SECOND, DATA, payload=9, seq=1101)
    ][2:]
    refused = world.dropped(data[-1], "TCP_FLAGS", location="tcp_v4_do_rcv")
    reset = [
        msgspec.structs.replace(e, flow=flow.reversed if e.flow.src == BACKEND else e.flow)
        for e in world.reply(40000, T + 9 * SECOND + MS, RST, seq=1)
    ]
    return [*data, refused, *reset]


def test_connection_that_was_translated_anew_is_one_connection_and_not_reset_by_its_backend() -> None:
    world = World()
    (path,) = world.tell(exchange(world, 40000, T), moved_to_another_backend(world))
    assert path.outcome is ConnectionOutcome.RESET and path.backend is not None and path.backend.ip == BACKEND
    (moved,) = [f for f in path.findings if f.check == "connection-moved"]
    assert OTHER in moved.title and "llm-0" in moved.title and "node-1" in moved.title
    assert not {"reset-on-path", "reset-by-app"} & {f.check for f in path.findings}


def test_other_connection_of_the_same_port_is_not_taken_for_a_new_translation() -> None:
    world = World()
    far = [
        msgspec.structs.replace(e, tcp=msgspec.structs.replace(e.tcp, seq=3_000_000_000))
        for e in moved_to_another_backend(world)[:3]
        if isinstance(e, PacketSeen) and e.tcp is not None
    ]
    paths = world.tell(exchange(world, 40000, T), fins(world, 40000, T + SECOND), far)
    assert len(paths) == 2 and all(f.check != "connection-moved" for path in paths for f in path.findings)


def data_then_reset(world: World, way: Callable[..., list[PacketSeen]]) -> list[PacketSeen]:
    """A connection older than the trace: data that goes one way, and then a reset of the client's."""
    return [
        *way(40000, T, DATA, payload=100, seq=1001),
        *world.request(40000, T + MS, RST, seq=1101),
    ]


def test_reset_of_which_nothing_before_was_seen_is_no_fault_of_anybodys() -> None:
    for sends, severity in (("reply", Severity.INFO), ("request", Severity.WARNING)):
        world = World()
        (path,) = world.tell(data_then_reset(world, getattr(world, sends)))
        (reset,) = [f for f in path.findings if f.check == "reset-by-client"]
        assert reset.severity is severity, sends


def test_reset_that_a_node_may_have_sent_before_it_was_watched_is_counted_only() -> None:
    """Its sender's node was watched a second later: "neither end was seen to send it" blamed what is between them."""
    world = World(attached={"node-1": T + SECOND})
    seen = [e for e in data_then_reset(world, world.request) if e.node == "node-2"]
    assert world.tell(seen) == [] and world.correlator.half_seen == 1


def test_reset_that_a_node_may_have_sent_after_it_was_watched_is_counted_only() -> None:
    world = World()
    ended = Progress(node="node-2", stage="detached", t_ns=T + SECOND)
    reset = [e for e in world.reply(40000, T + 2 * SECOND, RST, seq=1) if e.node == "node-1"]
    opened: list[Event] = [*exchange(world, 40000, T), ended]
    assert world.tell(opened, reset) == [] and world.correlator.half_seen == 1


def test_drop_without_a_rule_waits_for_the_counters_of_its_node() -> None:
    world = World()
    drops = [
        world.dropped(world.request(40000, T + i * SECOND, ip_id=i)[1], "NETFILTER_DROP", "POST_ROUTING")
        for i in (1, 2)
    ]
    events = [e for i in (1, 2) for e in world.request(40000, T + i * SECOND, ip_id=i)[:2]]
    begin = [e for e in world.begin() if not isinstance(e, NodeReport)]
    rules = RulesetDump(node="node-1", t_ns=T, source="iptables-nft", text="*filter\n:INPUT ACCEPT [0:0]\nCOMMIT\n")
    known = [host_report(node, T, {"conntrack_insert_failed": 0}) for node in ("node-1", "node-2")]
    assert world.feed([*begin, *known, rules, *events, *drops]) == []
    assert world.feed(world.ticks(T + 11 * SECOND)) == []  # quiet for long, and nothing explains it yet
    later = host_report("node-1", T + 12 * SECOND, {"conntrack_insert_failed": 2})
    (path,) = world.feed([later, *world.ticks(T + 13 * SECOND)])
    assert path.drop is not None and path.drop.check == "snat-ports-exhausted"


def host_report(node: str, t: int, counters: dict[str, int]) -> NodeReport:
    spaces = World.namespaces(node)
    host = msgspec.structs.replace(spaces[0], counters=counters)
    return NodeReport(node=node, t_ns=t, namespaces=(host, *spaces[1:]))


def streamed(first: int, second: int, gap_us: int) -> PacketPath:
    """A reply whose first two pieces leave at these times, and 100 more, `gap_us` apart."""
    world = World()
    gaps, sums = (0,) * 62 + (100,), (0,) * 62 + (100 * gap_us,)
    records: list[FlowCounters] = []
    for e in world.reply(40000, first, DATA, payload=200, seq=9001):
        shift = e.t_ns - first
        times = {"first_ns": e.t_ns, "second_ns": second + shift, "last_ns": second + shift + 5 * SECOND}
        records.append(
            counted(
                e, data_bytes=9000, silence_ns=second - first, silence_at_ns=e.t_ns, gaps=gaps, gap_us=sums, **times
            )
        )
    request = world.request(40000, T + MS, DATA, payload=300, seq=1001)
    events: list[Event] = [*world.handshake(40000, T), *request, *(counted(e) for e in request)]
    reply = world.reply(40000, first, DATA, payload=200, seq=9001)
    (path,) = world.tell(events, reply, records, fins(world, 40000, second + 6 * SECOND))
    return path


def test_pause_after_the_first_piece_is_the_wait_for_the_first_token() -> None:
    path = streamed(T + 2 * MS, T + 2 * MS + 3 * SECOND, 50_400)
    assert path.stream is not None and path.stream.next_reply_ns == 3 * SECOND
    assert [f.check for f in path.findings] == ["slow-first-token"]
    quick = streamed(T + 2 * MS, T + 52 * MS, 50_400)
    assert quick.findings == () and quick.stream is not None and quick.stream.gap_p50_ns == 50_400_000


def test_quantile_of_gaps_is_the_mean_of_its_bucket() -> None:
    gaps, sums = (0,) * 10 + (9, 0, 1), (0,) * 10 + (9 * 51, 0, 900)
    assert gap_quantile(gaps, sums, 0.5) == 51_000 and gap_quantile(gaps, sums, 0.99) == 900_000
    assert gap_quantile((0, 1), (), 0.5) == 1500 and gap_quantile((), (), 0.5) is None


def test_stream_that_began_before_the_trace_is_as_old_as_its_first_data() -> None:
    world = World()
    reply = world.reply(40000, T, DATA, payload=100, seq=9001)
    records = [counted(e, data_bytes=5000, last_ns=T + 4 * SECOND) for e in reply]
    (path,) = world.tell(reply, records, fins(world, 40000, T + 5 * SECOND))
    assert path.stream is not None and path.stream.older and abs(path.stream.lasted_ns - 5 * SECOND) < MS


def test_reset_of_a_connection_that_is_not_known_there_is_no_applications() -> None:
    world = World()
    data = world.request(40000, T, DATA, payload=100, seq=1001)
    refused = world.dropped(data[-1], "TCP_FLAGS", location="tcp_v4_do_rcv")
    (path,) = world.tell(data, [refused], world.reply(40000, T + MS, RST, seq=1))
    assert path.outcome is ConnectionOutcome.RESET and path.drop is not None
    assert path.drop.check == "unknown-connection" and [f.check for f in path.findings] == ["reset-by-kernel"]
    assert "knows no such connection" in path.findings[0].title


RULES = "*nat\n:PREROUTING ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n{}COMMIT\n"
TO_BACKEND = f"-A PREROUTING -d {SERVICE}/32 -p tcp -m tcp --dport 80 -j DNAT --to-destination {BACKEND}:8080\n"


def old_connection(world: World, *, rules: str) -> PacketPath:
    """One older than the trace, whose packets go to an address that is no endpoint (any more)."""
    world.correlator.connections.servers.add((OTHER, 8080))
    after = world.ends(40000)[1]
    data = [
        msgspec.structs.replace(e, flow=msgspec.structs.replace(after, dst=OTHER) if e.flow == after else e.flow)
        for e in world.request(40000, T, DATA, payload=100, seq=1001)
    ]
    dump = RulesetDump(node="node-1", t_ns=T, source="iptables-nft", text=rules)
    (path,) = world.tell([dump], data)
    return path


def test_translation_that_no_rule_makes_is_an_entrys_of_the_connection_table() -> None:
    path = old_connection(World(), rules=RULES.format(TO_BACKEND))
    assert path.nat is not None and (path.nat.mode, path.nat.certainty) == ("conntrack", Certainty.DERIVED)
    (stale,) = [f for f in path.findings if f.check == "stale-connection"]
    assert OTHER in stale.title and "no rule does" in stale.title and stale.remedy is not None
    assert stale.remedy.command == (
        f"conntrack -D -p tcp --orig-src {CLIENT} --orig-dst {SERVICE} --orig-port-dst 80 --orig-port-src 40000"
    )


def test_rules_that_say_nothing_of_the_service_prove_no_entry() -> None:
    path = old_connection(World(), rules=RULES.format("-A PREROUTING -d 192.0.2.1/32 -j ACCEPT\n"))
    assert path.nat is not None and (path.nat.mode, path.nat.certainty) == ("unknown", Certainty.UNKNOWN)


def test_hops_are_those_of_the_attempt_that_died_where_each_is_translated_anew() -> None:
    world = World()
    first, second = world.request(40000, T, ip_id=1)[:2], world.request(40000, T + SECOND, ip_id=2)
    elsewhere = msgspec.structs.replace(second[-1].flow, dst=OTHER)
    died = world.dropped(first[-1], "NETFILTER_DROP", "FORWARD", location="nft_do_chain")
    died = msgspec.structs.replace(died, flow=elsewhere)
    (path,) = world.tell([*first, died, *second])
    assert path.drop is not None and path.backend is not None and path.nat is not None
    assert {hop.node for hop in path.hops} == {path.drop.node} == {"node-1"}
    assert path.backend.ip == OTHER and path.nat.after.startswith(OTHER)


def host_rules(read_ns: int, *rules: str) -> list[Event]:
    text = "\n".join(["*filter", ":FORWARD ACCEPT [0:0]", *(f"-A FORWARD {rule}" for rule in rules), "COMMIT\n"])
    dump = RulesetDump(node="node-2", t_ns=read_ns, source="iptables-nft", text=text)
    return [dump, NetnsRules(node="node-2", t_ns=read_ns, netns=HOST["node-2"], dumps=())]


def test_rule_that_was_inserted_a_moment_ago_is_named_not_an_older_one_that_drops_as_well() -> None:
    world = World()
    older, inserted = "-p tcp -j DROP", "-p tcp --dport 8080 -j DROP"
    seen = world.request(40000, T)[:4]
    died = world.dropped(seen[-1], "NETFILTER_DROP", "FORWARD", location="nft_do_chain")
    begun = [*world.begin(), *host_rules(T - SECOND, older), *seen, died]
    assert world.feed([*begun, *world.ticks(T + 3 * SECOND)]) == []  # rules are read again
    (path,) = world.feed([*host_rules(T + 3 * SECOND, inserted, older), *world.ticks(T + 4 * SECOND)])
    assert path.drop is not None and inserted in (path.drop.rule or "")


def test_rules_as_they_were_still_explain_a_translation() -> None:
    world = World()
    before = RULES.format(TO_BACKEND.replace(BACKEND, OTHER))
    world.feed([RulesetDump(node="node-1", t_ns=T - SECOND, source="iptables-nft", text=before)])
    path = old_connection(world, rules=RULES.format(TO_BACKEND))
    assert path.nat is not None and (path.nat.mode, path.nat.certainty) == ("iptables", Certainty.DERIVED)


def test_what_is_lost_again_once_all_has_arrived_decides_nothing() -> None:
    """A deep queue on the way: the reply is sent again before it has arrived, and the copy finds the queue full."""
    world = World()
    reply = world.reply(40000, T + 2 * MS, DATA, payload=500, seq=9001)
    arrived = [counted(e, data_bytes=500, last_ns=e.t_ns) for e in reply]
    copies = [world.dropped(msgspec.structs.replace(reply[1], t_ns=T + i * SECOND), "QDISC_DROP") for i in (3, 4)]
    (path,) = world.tell(exchange(world, 40000, T), arrived, fins(world, 40000, T + 2 * SECOND), copies)
    assert (path.outcome, path.drop, path.recovered_drops) == (ConnectionOutcome.ANSWERED, None, 2)


def test_what_comes_for_a_client_that_has_reset_is_its_reset_and_no_drop() -> None:
    world = World()
    reset = world.request(40000, T + SECOND, RST, seq=1101)
    reply = world.reply(40000, T + SECOND + 100 * MS, DATA, payload=500, seq=9501)
    refused = world.dropped(reply[-1], "NO_SOCKET", location="tcp_v4_rcv")
    (path,) = world.tell(exchange(world, 40000, T), reset, [refused])
    assert (path.outcome, path.verdict) == (ConnectionOutcome.RESET, Verdict.RESET)
    assert path.drop is None and "a reset from the client's side" in path.waited


@pytest.mark.parametrize(
    ("idle_s", "who"), [(15, "Envoy"), (60, "nginx"), (350, "NLB"), (600, "Google Cloud"), (40, "")]
)
def test_a_reset_after_a_well_known_idle_time_names_who_forgets_after_so_long(idle_s: int, who: str) -> None:
    world = World()
    opened = exchange(world, 40000, T)
    data = [counted(seen) for seen in opened if seen.payload]
    reset = world.reply(40000, T + idle_s * SECOND, RST, seq=9501)
    (path,) = world.tell(opened, data, reset)
    assert path.outcome is ConnectionOutcome.RESET and path.stream is not None
    assert path.stream.idle_ns == pytest.approx(idle_s * SECOND, rel=0.001)
    titles = [f.title for f in path.findings if f.check == "idle-time"]
    assert [who in title for title in titles] == ([True] if who else [])


@pytest.mark.parametrize("pause_s", [1, 5])
def test_what_was_idle_is_the_time_before_the_data_that_was_lost(pause_s: int) -> None:
    """However long it is sent again: the client gives up, and the trace ends, later."""
    world = World()
    opened = exchange(world, 40000, T)
    resumed = T + 350 * SECOND
    lost = world.request(40000, resumed, DATA, payload=50, seq=1101)[:3]
    first = next(seen for seen in opened if seen.payload)
    asked = counted(first, data_bytes=150, last_ns=resumed, silence_ns=resumed - first.t_ns, silence_at_ns=first.t_ns)
    answered = [counted(seen) for seen in opened if seen.payload and seen.flow.sport == 8080]
    drops = [world.dropped(lost[-1], "NETFILTER_DROP", "FORWARD", location="nft_do_chain")]
    drops += [msgspec.structs.replace(drops[0], t_ns=resumed + pause_s * SECOND)]
    (path,) = world.tell(opened, answered, lost, [asked], drops)
    assert path.outcome is ConnectionOutcome.DROPPED and path.stream is not None
    assert path.stream.idle_ns == pytest.approx(350 * SECOND, rel=0.001)
    assert [f.check for f in path.findings if f.check == "idle-time"] == ["idle-time"]
