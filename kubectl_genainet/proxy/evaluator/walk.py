"""Walks a packet through a node's rules as the kernel does, every random or unknown way of it.

Order of the hooks and what NAT does between them: net/netfilter/core.c, nf_nat_core.c, ip_input.c, ip_output.c. The
packet is the first of its client's first connection: nothing has been remembered of it (recent, affinity sets).
"""

from __future__ import annotations

from collections.abc import Sequence

from kubectl_genainet.proxy.evaluator import actions, doubts, virtual
from kubectl_genainet.proxy.evaluator.actions import CONNTRACK, Frames, Here
from kubectl_genainet.proxy.evaluator.ir import Act, Action, Chain, Passed, Rule, RulePath
from kubectl_genainet.proxy.evaluator.model import RulesetVerdict
from kubectl_genainet.proxy.evaluator.packet.state import State
from kubectl_genainet.proxy.evaluator.remember import Asked
from kubectl_genainet.proxy.evaluator.rule_ref import ENTERED, Hook, RuleRef
from kubectl_genainet.proxy.evaluator.summary import End
from kubectl_genainet.proxy.ruleset import Ruleset, effective_priority

MAX_WAYS = 20_000  # ways of one packet that are followed; the largest Service has one per endpoint
MAX_STEPS = 500_000  # rules that one packet may meet on all of its ways
MAX_DOUBTS = 12  # open questions on one way: each doubles the ways
MAX_DEPTH = 64  # of jumps; the kernel has 16 (NFT_JUMP_STACK_SIZE)
DNAT = -100  # NF_IP_PRI_NAT_DST
DST_NAT_DONE, SRC_NAT_DONE = 256, 128  # enum ip_conntrack_status: NAT has decided, also not to translate
_BEFORE_ROUTING = (Hook.PRE_ROUTING, Hook.OUTPUT)
# A way's rest, from where it has its new destination: what decides it, and what came of it (None: it forked).
_TailKey = tuple[object, ...]
_Tail = tuple[End, tuple[Passed, ...]]


class Walk:
    """One packet's walk. `pending` has the ways still to be followed, each with where to go on."""

    def __init__(
        self,
        ruleset: Ruleset,
        state: State,
        only: Hook | None = None,
        asked: Asked | None = None,
        *,
        reverse_ties: bool = False,
        visits: bool = False,
    ) -> None:
        self.ruleset, self.state, self.only, self.asked = ruleset, state, only, asked or Asked()
        self.reverse_ties, self.visits = reverse_ties, visits
        self.pending: list[tuple[State, Hook, int, Frames]] = []
        self.ends: list[End] = []
        self.tails: dict[_TailKey, _Tail | None] = {}
        self.questions = doubts.Questions()
        self.nat_bits = DST_NAT_DONE | SRC_NAT_DONE if ruleset.translates(state.family) else 0
        self.steps = 0

    def run(self, entry: Hook) -> list[End]:
        state = self.state
        if self.only is None:
            self._enter(state, entry)
            if entry is Hook.PRE_ROUTING and self._chains(state, Hook.INGRESS):
                entry = Hook.INGRESS
        state.own = entry is Hook.OUTPUT
        if state.own:
            state.bridged = False
        self.pending.append((state, entry, 0, None))
        while self.pending:
            if len(self.ends) + len(self.pending) > MAX_WAYS or self.steps > MAX_STEPS:
                self.end(self.pending[-1][0], RulesetVerdict.UNKNOWN, f"more than {MAX_WAYS} ways or {MAX_STEPS} rules")
                break
            self._follow(*self.pending.pop())
        return self.ends

    def _enter(self, state: State, entry: Hook) -> None:
        """Sets what depends on where the packet comes from: no device yet, or none at all."""
        if entry is Hook.OUTPUT:
            state.iif = ""
            if state.env.is_local(state.dst, state.family):
                state.oif = state.oif_routed = "lo"
        else:
            state.oif = ""
            state.uid = state.gid = -1
            state.from_wire = True
        if state.ct != "UNTRACKED":
            state.ct, state.ct_later = "INVALID", state.ct

    def end(self, state: State, verdict: RulesetVerdict, reason: str = "") -> None:
        self.ends.append(End(state, verdict, reason))

    def _chains(self, state: State, hook: Hook) -> tuple[Chain, ...]:
        return self.ruleset.chains_at(state.family, hook, reverse_ties=self.reverse_ties)

    def _follow(self, state: State, hook: Hook, index: int, frames: Frames) -> None:
        """Follows one way from a base chain (or from inside of it, with `frames`) to its end or to a fork."""
        chains = self._chains(state, hook)
        while True:
            while index < len(chains):
                chain = chains[index]
                if frames is None:
                    if state.ct_later and effective_priority(chain) > CONNTRACK and hook is not Hook.INGRESS:
                        _track(state)
                    if hook in _BEFORE_ROUTING and effective_priority(chain) > DNAT:
                        state.nat_done |= self.nat_bits & DST_NAT_DONE
                    if virtual.schedules_before(self, state, hook, chain) and virtual.schedule(self, state, hook):
                        return
                    if self._skips(chain, hook, state):
                        index += 1
                        continue
                    if self.visits:
                        state.path = (visit_of(chain), state.path)
                if not self._chain(state, hook, index, chain, frames):
                    return
                frames = None
                index += 1
                if state.dnat and chain.kind == "nat" and self._share(state, hook, index):
                    return
            following = self._after(state, hook)
            if following is None:
                return
            hook, index = following, 0
            chains = self._chains(state, hook)

    def _share(self, state: State, hook: Hook, chain_index: int) -> bool:
        """Follows the rest of a translated way once for all backends that no rule tells apart. True: it is done."""
        asked = self.ruleset.destinations_asked(state.family)
        if asked is None or state.dst in asked or state.env.is_local(state.dst, state.family) is not False:
            return False
        changed = (state.dst, state.dport) != (state.orig_dst, state.orig_dport)
        key = (
            *(
                hook,
                chain_index,
                state.mark,
                state.known,
                state.connmark,
                state.connmark_known,
                state.ct,
                state.accepted,
            ),
            *(state.doubts, state.tos, state.ttl, state.masquerade, changed, state.added),
        )
        if key not in self.tails:
            started, ends, waiting = state.path, len(self.ends), len(self.pending)
            self.tails[key] = None
            self._follow(state, hook, chain_index, None)
            if len(self.ends) == ends + 1 and len(self.pending) == waiting:
                self.tails[key] = (self.ends[-1], _since(self.ends[-1].state.path, started))
            return True
        tail = self.tails[key]
        if tail is None:
            return False
        end, rules = tail
        state.masquerade, state.accepted, state.mark = end.state.masquerade, end.state.accepted, end.state.mark
        state.assumed = tuple(dict.fromkeys((*state.assumed, *end.state.assumed)))
        state.path = (rules, state.path)
        self.end(state, end.verdict, end.reason)
        return True

    def _skips(self, chain: Chain, hook: Hook, state: State) -> bool:
        """NAT happens once, for a new connection (nf_nat_inet_fn); a single hook is looked at for its filters."""
        if chain.kind != "nat":
            return False
        if self.only is not None or state.ct not in ("NEW", "RELATED"):
            return True
        if hook in (Hook.PRE_ROUTING, Hook.OUTPUT):
            return state.dnat or state.looped or (state.scheduled and hook is Hook.OUTPUT)
        return state.masquerade

    def _after(self, state: State, hook: Hook) -> Hook | None:
        """The next hook, or None where the way ends (or was put off to be followed later)."""
        if self.only is not None:
            self.end(state, RulesetVerdict.ACCEPT if state.accepted else RulesetVerdict.NO_MATCH)
            return None
        if state.ct_later and hook is not Hook.INGRESS:
            _track(state)
        if hook is not Hook.FORWARD and state.traced:
            state.nat_done |= self.nat_bits & (DST_NAT_DONE if hook in _BEFORE_ROUTING else SRC_NAT_DONE)
        if hook in (Hook.INPUT, Hook.OUTPUT) and virtual.schedule(self, state, hook):
            return None
        match hook:
            case Hook.INGRESS:
                return Hook.PRE_ROUTING
            case Hook.FORWARD | Hook.OUTPUT:
                if state.own:
                    local = state.env.is_local(state.dst, state.family)
                    state.oif = "lo" if local else state.oif_routed if state.oif_routed != "lo" else None
                return Hook.POST_ROUTING
            case Hook.PRE_ROUTING:
                return self._route(state)
            case Hook.POST_ROUTING if state.own and state.env.is_local(state.dst, state.family):
                state.own, state.looped = False, True  # back in through the loopback device, its NAT decided
                state.iif, state.oif, state.from_wire = "lo", "", False
                return Hook.PRE_ROUTING
            case Hook.POST_ROUTING if self._chains(state, Hook.EGRESS):
                return Hook.EGRESS
        if state.dnat and not state.redirected:
            verdict = RulesetVerdict.DNAT
        else:
            verdict = RulesetVerdict.ACCEPT if state.accepted or state.redirected else RulesetVerdict.NO_MATCH
        self.end(state, verdict)
        return None

    def _route(self, state: State) -> Hook | None:
        local = True if state.handed_to is not None else state.env.is_local(state.dst, state.family)
        if local is None:
            label = doubts.local_question(state.dst, state.family)
            local = dict(state.doubts).get(label)
            if local is None:
                other = state.copy()
                other.doubts += ((label, True),)
                state.doubts += ((label, False),)
                self.pending.append((other, Hook.INPUT, 0, None))
                local = False
        virtual.assume_whole_list(self, state)
        if not local:
            state.oif = state.oif_routed
            state.ttl = None if state.ttl is None else state.ttl - 1  # ip_forward, net/ipv4/ip_forward.c
        return Hook.INPUT if local else Hook.FORWARD

    def _chain(self, state: State, hook: Hook, chain_index: int, chain: Chain, frames: Frames) -> bool:
        """Runs one base chain. True: go on with the next one; False: this way ended, or goes on in `pending`."""
        if frames is None:
            frames = (chain.candidates(state), 0, None)
        asked = self.asked
        while frames is not None:
            rules, position, parent = frames
            count, started = len(rules), position
            if self._wanders(state, chain):
                return False
            while position < count:
                rule = rules[position]
                position += 1
                unsure: list[int] | None = None
                for number, condition in enumerate(rule.conditions):
                    result = condition(state)
                    if asked.touched:
                        asked.note(condition, state, result)
                    if not result:
                        if result is not None:
                            break
                        unsure = [*(unsure or ()), number]
                else:
                    here = (rules, position, parent)
                    step = self._matched(state, rule, unsure, hook, chain_index, chain, here)
                    if step is None:
                        continue
                    self.steps += position - started
                    if isinstance(step, bool):
                        return step
                    if self._wanders(state, rule.chain, step[2]):
                        return False
                    rules, position, parent = step
                    count, started = len(rules), position
            self.steps += count - started
            frames = parent
        return self._policy(state, hook, chain_index, chain)

    def _matched(
        self,
        state: State,
        rule: Rule,
        unsure: list[int] | None,
        hook: Hook,
        chain_index: int,
        chain: Chain,
        here: Here,
    ) -> Here | bool | None:
        """Does what a rule says of which no condition failed; as `actions.perform`. `unsure`: the conditions not known."""
        if unsure:
            if rule.idle:
                return None
            if len(state.doubts) > MAX_DOUBTS:
                self.end(state, RulesetVerdict.UNKNOWN, f"more than {MAX_DOUBTS} matches that are not known")
                return False
            if not self._presume(state, rule.doubts(unsure), hook, chain_index, here):
                return None
        if rule.probability is not None:
            self._chance(state, rule.probability, hook, chain_index, here)
        if rule.target is not None:
            state.path = (rule, state.path)
            return rule.target.candidates(state), 0, here[2] if rule.goto else here
        if rule.final is not None:
            state.path = (rule, state.path)
            return actions.final(self, state, rule.final, hook)
        return actions.perform(self, state, rule, hook, chain_index, chain, here)

    def _wanders(self, state: State, chain: Chain, parent: Frames = None) -> bool:
        """Ends a way whose jumps go too deep, or on which too many rules were met."""
        self.steps += 1
        if self.steps > MAX_STEPS:
            self.end(
                state, RulesetVerdict.UNKNOWN, f"more than {MAX_STEPS} rules are met, the last in chain {chain.name}"
            )
        elif parent is not None and _depth(parent) > MAX_DEPTH:
            self.end(state, RulesetVerdict.UNKNOWN, f"the jumps at chain {chain.name} do not end")
        else:
            return False
        return True

    def _policy(self, state: State, hook: Hook, chain_index: int, chain: Chain) -> bool:
        if chain.policy == "":
            label = f"the policy of {chain.name} in table {chain.table.title}, which is not in the dump"
            known = dict(state.doubts).get(label)
            if known is None:
                other = state.copy()
                other.doubts += ((label, False),)
                state.doubts += ((label, True),)
                self.pending.append((other, hook, chain_index + 1, None))
            elif not known:
                return True
        elif chain.policy != "DROP":
            return True
        state.path = (chain, state.path)
        self.end(state, RulesetVerdict.DROP)
        return False

    def put_off(
        self,
        way: State,
        action: Action,
        hook: Hook,
        chain_index: int,
        chain: Chain,
        here: Here,
    ) -> None:
        """Puts a way that begins with `action` among those to be followed."""
        if action.kind is Act.CONTINUE:
            self.pending.append((way, hook, chain_index, here))
            return
        step = actions.step(self, way, action, hook, chain, here)
        if step is True:
            self.pending.append((way, hook, chain_index + 1, None))
        elif step is not False:
            self.pending.append((way, hook, chain_index, step))

    def _presume(
        self,
        state: State,
        asked: Sequence[doubts.Doubt],
        hook: Hook,
        chain_index: int,
        here: Here,
    ) -> bool:
        """Takes matches that can't be known for true, and puts off the ways where one is not."""
        for doubt in asked:
            label, matches = self.questions.of(state, doubt)
            answer = self.questions.answered(state, label)
            if answer is None:
                other = state.copy()
                other.doubts += ((label, not matches),)
                state.doubts += ((label, matches),)
                self.pending.append((other, hook, chain_index, here))
            elif answer is not matches:
                return False
        return True

    def presume_condition(self, state: State, action: Action, hook: Hook, chain_index: int, here: Here) -> bool:
        """A match that stands behind another action: whether the rule goes on."""
        assert action.condition is not None
        result = action.condition(state)
        if self.asked.touched:
            self.asked.note(action.condition, state, result)
        if result is None:
            return self._presume(state, ((action.condition, action.detail),), hook, chain_index, here)
        return result

    def _chance(self, state: State, share: float, hook: Hook, chain_index: int, here: Here) -> None:
        if share >= 1:
            return
        other = state.copy()
        if state.probability is not None:
            other.probability, state.probability = state.probability * (1 - share), state.probability * share
        self.pending.append((other, hook, chain_index, here))


def visit_of(chain: Chain) -> RuleRef:
    """A base chain that a packet enters, whether a rule of it matches or not, as an entry of its path."""
    hook = chain.hook.value if chain.hook is not None else ""
    return RuleRef(chain.table.title, chain.name, ENTERED, f"{hook} {chain.priority}")


def _track(state: State) -> None:
    """Connection tracking has seen the packet (nf_conntrack_in, priority -200)."""
    if state.ct != "UNTRACKED":
        state.ct = state.ct_later
    state.ct_later = ""


def _depth(frames: Frames) -> int:
    depth = 0
    while frames is not None:
        depth, frames = depth + 1, frames[2]
    return depth


def _since(path: RulePath | None, start: RulePath | None) -> tuple[Passed, ...]:
    """The rules of a path after `start`, oldest first."""
    since: list[Passed] = []
    while path is not None and path is not start:
        passed, path = path
        since += reversed(passed) if isinstance(passed, tuple) else [passed]
    return tuple(reversed(since))
