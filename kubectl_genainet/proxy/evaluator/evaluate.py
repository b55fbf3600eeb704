"""Walks a packet through a node's rules as the kernel does, every random or unknown way of it.

Order of the hooks and what NAT does between them: net/netfilter/core.c, nf_nat_core.c, ip_input.c, ip_output.c. The
packet is the first of its client's first connection: nothing has been remembered of it (recent, affinity sets).
"""

from __future__ import annotations

from collections.abc import Sequence

from kubectl_genainet.model.packet import Protocol
from kubectl_genainet.proxy.evaluator.ir import (
    ALL_BITS,
    Act,
    Action,
    Chain,
    Env,
    Passed,
    Path,
    Rule,
    State,
    address_number,
    address_of,
)
from kubectl_genainet.proxy.evaluator.model import Evaluation, Packet, Verdict
from kubectl_genainet.proxy.evaluator.remember import Asked, WatchedState
from kubectl_genainet.proxy.evaluator.rule_ref import Hook
from kubectl_genainet.proxy.evaluator.summary import End, summary
from kubectl_genainet.proxy.ipvs.read import VirtualServer
from kubectl_genainet.proxy.ruleset import Ruleset

MAX_WAYS = 20_000  # ways of one packet that are followed; the largest Service has one per endpoint
# A way's rest, from where it has its new destination: what decides it, and what came of it (None: it forked).
_TailKey = tuple[Hook, int, int, int, int, bool, tuple[tuple[str, bool], ...]]
_Tail = tuple[End, tuple[Passed, ...]]
Frames = tuple[Sequence[Rule], int, "Frames"] | None


def evaluate(
    ruleset: Ruleset, packet: Packet, *, entry: Hook | None = None, node_ips: Sequence[str] | None = None
) -> Evaluation:
    """What the node does with a packet that enters it (or leaves a process of it, where `entry` is OUTPUT).

    Without `entry`, a packet from one of the node's own addresses is taken for its own. `node_ips` overrides the
    ruleset's. Raises ValueError where `packet` has no proper addresses.
    """
    env = ruleset.env if node_ips is None else ruleset.env_for(node_ips)
    state = WatchedState()
    asked = state.asked = Asked()
    _fill(state, packet, env, mark_known=True)
    src, sport = state.src, state.sport
    if entry is None:
        entry = Hook.OUTPUT if src is not None and env.is_local(src, state.family) else Hook.PRE_ROUTING
    key = (
        entry,
        id(env),
        state.family,
        state.dst,
        state.dport,
        state.proto,
        state.mark,
        state.ct,
        state.iif,
        state.oif,
        state.bridged,
    )
    known = ruleset.memory.recall(key, src, sport)
    if known is None:
        asked.touched = False
        ends = _Walk(ruleset, state, asked=asked).run(entry)
        known = summary(ends, state.family)
        ruleset.memory.keep(key, asked, known, len(ends))
    return known


def evaluate_hook(ruleset: Ruleset, packet: Packet, hook: Hook | str) -> Evaluation:
    """What the filtering chains of one hook do with a packet as it is there, after NAT.

    The packet's mark is not known unless given, so a rule that asks for it is followed both ways:
    `Evaluation.dropping_rules` has every rule that may have dropped it. Raises ValueError for no netfilter hook.
    """
    named = hook if isinstance(hook, Hook) else Hook.named(hook)
    if named is None:
        raise ValueError(f"{hook!r} is no netfilter hook")
    state = _fill(State(), packet, ruleset.env, mark_known=packet.mark is not None)
    return summary(_Walk(ruleset, state, only=named).run(named), state.family)


def _fill(state: State, packet: Packet, env: Env, *, mark_known: bool) -> State:
    state.env, state.family = env, 6 if ":" in packet.dst else 4
    state.src = address_number(packet.src) if packet.src else None
    state.dst = state.orig_dst = address_number(packet.dst)
    portless = packet.protocol in (Protocol.ICMP, Protocol.ICMPV6)
    state.sport = 0 if portless else packet.sport
    state.dport = state.orig_dport = 0 if portless else packet.dport
    state.proto = packet.protocol.number
    state.mark, state.known = packet.mark or 0, ALL_BITS if mark_known else 0
    state.connmark, state.ct = 0, packet.ct_state.upper()
    state.iif, state.oif, state.bridged = packet.in_device, packet.out_device, packet.bridged
    state.icmp = packet.icmp
    state.dnat = state.masquerade = state.accepted = state.own = state.looped = False
    state.probability, state.path, state.doubts = 1.0, None, ()
    return state


class _Walk:
    """One packet's walk. `pending` has the ways still to be followed, each with where to go on."""

    def __init__(self, ruleset: Ruleset, state: State, only: Hook | None = None, asked: Asked | None = None) -> None:
        self.ruleset, self.state, self.only, self.asked = ruleset, state, only, asked or Asked()
        self.pending: list[tuple[State, Hook, int, Frames]] = []
        self.ends: list[End] = []
        self.tails: dict[_TailKey, _Tail | None] = {}

    def run(self, entry: Hook) -> list[End]:
        self.state.own = entry is Hook.OUTPUT
        if self.state.own:
            self.state.bridged = False
        self.pending.append((self.state, entry, 0, None))
        while self.pending:
            if len(self.ends) + len(self.pending) > MAX_WAYS:
                self._end(self.pending[-1][0], Verdict.UNKNOWN, f"more than {MAX_WAYS} ways")
                break
            self._follow(*self.pending.pop())
        return self.ends

    def _end(self, state: State, verdict: Verdict, reason: str = "") -> None:
        self.ends.append(End(state, verdict, reason))

    def _follow(self, state: State, hook: Hook, at: int, frames: Frames) -> None:
        """Follows one way from a base chain (or from inside of it, with `frames`) to its end or to a fork."""
        chains = self.ruleset.chains_at(state.family, hook)
        while True:
            while at < len(chains):
                chain = chains[at]
                if frames is None and self._skips(chain, hook, state):
                    at += 1
                    continue
                if not self._chain(state, hook, at, chain, frames):
                    return
                frames = None
                at += 1
                if state.dnat and chain.kind == "nat" and self._share(state, hook, at):
                    return
            following = self._after(state, hook)
            if following is None:
                return
            hook, at = following, 0
            chains = self.ruleset.chains_at(state.family, hook)

    def _share(self, state: State, hook: Hook, at: int) -> bool:
        """Follows the rest of a translated way once for all backends that no rule tells apart. True: it is done."""
        asked = self.ruleset.destinations_asked(state.family)
        if asked is None or state.dst in asked or state.env.is_local(state.dst, state.family) is not False:
            return False
        key = (hook, at, state.mark, state.known, state.connmark, state.accepted, state.doubts)
        if key not in self.tails:
            started, ends, waiting = state.path, len(self.ends), len(self.pending)
            self.tails[key] = None
            self._follow(state, hook, at, None)
            if len(self.ends) == ends + 1 and len(self.pending) == waiting:
                self.tails[key] = (self.ends[-1], _since(self.ends[-1].state.path, started))
            return True
        tail = self.tails[key]
        if tail is None:
            return False
        end, rules = tail
        state.masquerade, state.accepted, state.mark = end.state.masquerade, end.state.accepted, end.state.mark
        state.path = (rules, state.path)
        self._end(state, end.verdict, end.reason)
        return True

    def _skips(self, chain: Chain, hook: Hook, state: State) -> bool:
        """NAT happens once, for a new connection (nf_nat_inet_fn); a single hook is looked at for its filters."""
        if chain.kind != "nat":
            return False
        if self.only is not None or state.ct not in ("NEW", "RELATED"):
            return True
        if hook in (Hook.PRE_ROUTING, Hook.OUTPUT):
            return state.dnat or state.looped
        return state.masquerade

    def _after(self, state: State, hook: Hook) -> Hook | None:
        """The next hook, or None where the way ends (or was put off to be followed later)."""
        if self.only is not None:
            self._end(state, Verdict.ACCEPT if state.accepted else Verdict.NO_MATCH)
            return None
        if hook in (Hook.INPUT, Hook.OUTPUT) and self._schedule(state):
            return None
        match hook:
            case Hook.FORWARD:
                return Hook.POST_ROUTING
            case Hook.OUTPUT:
                return Hook.POST_ROUTING
            case Hook.PRE_ROUTING:
                return self._route(state)
            case Hook.POST_ROUTING if state.own and state.env.is_local(state.dst, state.family):
                state.own, state.looped = False, True  # back in through the loopback device, its NAT decided
                return Hook.PRE_ROUTING
        verdict = Verdict.DNAT if state.dnat else Verdict.ACCEPT if state.accepted else Verdict.NO_MATCH
        self._end(state, verdict)
        return None

    def _route(self, state: State) -> Hook | None:
        local = state.env.is_local(state.dst, state.family)
        if local is None:
            label = f"whether {address_of(state.dst, state.family)} is an address of the node"
            other = state.copy()
            other.doubts += ((label, True),)
            state.doubts += ((label, False),)
            self.pending.append((other, Hook.INPUT, 0, None))
            return Hook.FORWARD
        return Hook.INPUT if local else Hook.FORWARD

    def _schedule(self, state: State) -> bool:
        """IPVS takes a packet to a virtual server at LOCAL_IN and LOCAL_OUT (ip_vs_core.c) and sends it on."""
        server = self._virtual_server(state)
        if server is None or state.dnat:
            return False
        choices = server.probabilities()
        if not choices:
            state.path = (server.ref(), state.path)
            self._end(state, Verdict.REJECT)
            return True
        for real, share in reversed(choices):
            way = state.copy()
            way.path = (server.ref(real), state.path)
            way.dst, way.dport, way.dnat = address_number(real.ip), real.port or state.dport, True
            way.probability = None if share is None or state.probability is None else share * state.probability
            self.pending.append((way, Hook.POST_ROUTING, 0, None))
        return True

    def _virtual_server(self, state: State) -> VirtualServer | None:
        if not self.ruleset.virtual_servers:
            return None
        by_mark = self.ruleset.ipvs_by_mark.get(state.mark) if state.known == ALL_BITS else None
        name = Protocol.from_number(state.proto).value
        return by_mark or (
            self.ruleset.ipvs_by_key.get((name, state.dst, state.dport)) if state.dport is not None else None
        )

    def _chain(self, state: State, hook: Hook, at: int, chain: Chain, frames: Frames) -> bool:
        """Runs one base chain. True: go on with the next one; False: this way ended, or goes on in `pending`."""
        if frames is None:
            frames = (chain.candidates(state), 0, None)
        asked = self.asked
        while frames is not None:
            rules, position, parent = frames
            count = len(rules)
            while position < count:
                rule = rules[position]
                position += 1
                doubt = ""
                for check in rule.checks:
                    result = check(state)
                    if asked.touched:
                        asked.note(check, state, result)
                    if not result:
                        if result is not None:
                            break
                        doubt = doubt or rule.labels[rule.checks.index(check)]
                else:
                    if doubt and not self._presume(state, doubt, hook, at, (rules, position, parent)):
                        continue
                    if rule.probability is not None:
                        self._chance(state, rule.probability, hook, at, (rules, position, parent))
                    target = rule.target
                    if target is not None:
                        state.path = (rule, state.path)
                        parent = parent if rule.goto else (rules, position, parent)
                        rules, position = target.candidates(state), 0
                        count = len(rules)
                        continue
                    if rule.final is not None:
                        state.path = (rule, state.path)
                        return self._final(state, rule.final)
                    step = self._actions(state, rule, hook, at, chain, (rules, position, parent))
                    if step is None:
                        continue
                    if isinstance(step, bool):
                        return step
                    rules, position, parent = step
                    count = len(rules)
            frames = parent
        if chain.policy == "DROP":
            state.path = (chain, state.path)
            self._end(state, Verdict.DROP)
            return False
        return True

    def _actions(
        self, state: State, rule: Rule, hook: Hook, at: int, chain: Chain, here: tuple[Sequence[Rule], int, Frames]
    ) -> tuple[Sequence[Rule], int, Frames] | bool | None:
        """Does what a matching rule says: where to go on, how the base chain ended, or None for the next rule."""
        before = state.path
        state.path = (rule, before)
        for given in rule.actions:
            action = given
            if action.lookup is not None:
                found = action.lookup(state)
                if self.asked.touched:
                    self.asked.note(action.lookup, state, found)
                if found is None:  # no such element: the rule does not match after all (nft_lookup_eval)
                    state.path = before
                    return None
                action = found
                if action.element is not None:
                    state.path = (action.element, state.path)
            kind = action.kind
            if kind is Act.MARK:
                state.mark = (state.mark & action.keep) ^ action.flip
                state.known |= ~action.keep & ALL_BITS
            elif kind is Act.SPLIT:
                for share, choice in reversed(action.choices):
                    way = state.copy()
                    way.probability = None if state.probability is None else state.probability * share
                    self._put_off(way, choice, hook, at, chain, here)
                return False
            elif kind is Act.CONNMARK:
                state.mark = state.connmark if action.detail == "--restore-mark" else state.mark
                state.connmark = state.mark if action.detail == "--save-mark" else state.connmark
            elif kind is not Act.CONTINUE:
                return self._step(state, action, chain, here)
        return None

    def _step(
        self, state: State, action: Action, chain: Chain, here: tuple[Sequence[Rule], int, Frames]
    ) -> tuple[Sequence[Rule], int, Frames] | bool:
        kind = action.kind
        if kind is Act.JUMP or kind is Act.GOTO:
            target = chain.table.chains.get(action.chain)
            if target is None:
                self._end(state, Verdict.UNKNOWN, f"chain {action.chain} is not in the dump")
                return False
            return target.candidates(state), 0, here if kind is Act.JUMP else here[2]
        if kind is Act.RETURN:
            return (), 0, here[2]
        return self._final(state, action)

    def _final(self, state: State, action: Action) -> bool:
        """A verdict that ends the base chain. True: the packet goes on to the next one."""
        kind = action.kind
        if kind is Act.ACCEPT:
            state.accepted = True
            return True
        if kind is Act.DNAT:
            if action.address is not None:
                state.dst = action.address if action.address >= 0 else _redirected(state)
            state.dport = action.port if action.port is not None else state.dport
            state.dnat = True
            return True
        if kind is Act.SNAT:
            state.masquerade = True
            return True
        if kind is Act.DROP or kind is Act.REJECT:
            self._end(state, Verdict.DROP if kind is Act.DROP else Verdict.REJECT)
        elif kind is Act.QUEUE:
            self._end(state, Verdict.UNKNOWN, f"a program decides ({action.detail})")
        else:
            self._end(state, Verdict.UNKNOWN, action.detail)
        return False

    def _put_off(
        self, way: State, action: Action, hook: Hook, at: int, chain: Chain, here: tuple[Sequence[Rule], int, Frames]
    ) -> None:
        """Puts a way that begins with `action` among those to be followed."""
        if action.kind is Act.CONTINUE:
            self.pending.append((way, hook, at, here))
            return
        step = self._step(way, action, chain, here)
        if step is True:
            self.pending.append((way, hook, at + 1, None))
        elif step is not False:
            self.pending.append((way, hook, at, step))

    def _presume(self, state: State, doubt: str, hook: Hook, at: int, here: tuple[Sequence[Rule], int, Frames]) -> bool:
        """Takes a match that can't be known for true, and puts off the way where it is not."""
        for label, choice in state.doubts:
            if label == doubt:
                return choice
        other = state.copy()
        other.doubts += ((doubt, False),)
        state.doubts += ((doubt, True),)
        self.pending.append((other, hook, at, here))
        return True

    def _chance(
        self, state: State, share: float, hook: Hook, at: int, here: tuple[Sequence[Rule], int, Frames]
    ) -> None:
        if share >= 1:
            return
        other = state.copy()
        if state.probability is not None:
            other.probability, state.probability = state.probability * (1 - share), state.probability * share
        self.pending.append((other, hook, at, here))


def _since(path: Path | None, start: Path | None) -> tuple[Passed, ...]:
    """The rules of a path after `start`, oldest first."""
    found: list[Passed] = []
    while path is not None and path is not start:
        passed, path = path
        found += reversed(passed) if isinstance(passed, tuple) else [passed]
    return tuple(reversed(found))


def _redirected(state: State) -> int:
    """REDIRECT sends to the node itself; which of its addresses depends on the device, so any of them stands for it."""
    loopback = address_number("127.0.0.1" if state.family == 4 else "::1")
    return min((a for a in state.env.local or () if (a < 1 << 32) == (state.family == 4)), default=loopback)
