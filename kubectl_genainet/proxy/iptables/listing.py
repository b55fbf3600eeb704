"""`iptables -S` and `iptables -L -n -v --line-numbers`, written as iptables-save text, which is then read.

What a listing says in other words is put into options; what is left over becomes an option that no match has, so that
the rule is known to be read in part. Source: iptables(8); the print functions of iptables' extensions.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator

_BUILT_IN = {
    frozenset({"PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"}): "nat",
    frozenset({"PREROUTING", "OUTPUT", "POSTROUTING"}): "nat",
    frozenset({"PREROUTING", "OUTPUT"}): "raw",
    frozenset({"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"}): "mangle",
}
# A table is not whole without them. The nat table has INPUT since Linux 2.6.36, and lists of old kernels don't.
_NEEDED = {
    "filter": ("INPUT", "FORWARD", "OUTPUT"),
    "security": ("INPUT", "FORWARD", "OUTPUT"),
    "nat": ("PREROUTING", "OUTPUT", "POSTROUTING"),
    "raw": ("PREROUTING", "OUTPUT"),
    "mangle": ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"),
}
_FILTER = frozenset({"INPUT", "FORWARD", "OUTPUT"})
LISTED = "# From a listing"  # the first line of each table's text
_NAMES = frozenset({"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"})
_CHAIN = re.compile(r"^Chain (\S+) \((?:policy (\S+)|\d+ references)")
_ADDRESS = r"!?[0-9A-Fa-f:.]+(?:/[0-9A-Fa-f:.]+)?|anywhere|!?[\w.-]+\.[\w.-]+"
_VERBOSE = re.compile(
    r"^\s*(?:\d+\s+)?(?P<packets>\d+[KMGT]?)\s+(?P<bytes>\d+[KMGT]?)\s+(?:(?P<target>\S+)\s+)??(?P<prot>!?[\w-]+)\s+"
    rf"(?:(?:--|-f|!f)\s+)?(?P<iif>\S+)\s+(?P<oif>\S+)\s+(?P<src>{_ADDRESS})\s+(?P<dst>{_ADDRESS})(?P<rest>.*)$"
)
_SHORT = re.compile(
    r"^\s*(?:\d+\s+)?(?:(?P<target>[A-Za-z_][\w.:/-]*)\s+)??(?P<prot>!?[\w-]+)\s+(?:(?:--|-f|!f)\s+)?"
    rf"(?P<src>{_ADDRESS})\s+(?P<dst>{_ADDRESS})(?P<rest>.*)$"
)
_EVERYWHERE = ("0.0.0.0/0", "::/0", "anywhere")
_VALUE = r"(!?\s?[^\s]+)"
# What `-L` prints of a match or a target -> the options; $1, $2 are what the groups held. "!" moves in front.
_EXTRAS: tuple[tuple[re.Pattern[str], str, bool], ...] = tuple(
    (re.compile(pattern), options, is_target)
    for pattern, options, is_target in (
        (r"^(?:tcp|udp|sctp|udplite|dccp) (?=[ds]pts?:|flags:)", "", False),
        (rf"^dpts?:{_VALUE}", "$0--dport $1", False),
        (rf"^spts?:{_VALUE}", "$0--sport $1", False),
        (r"^(?:tcp )?(?:tcp)?flags:(!? ?)(0x[0-9A-Fa-f]+)/(0x[0-9A-Fa-f]+)", "FLAGS", False),
        (rf"^multiport (dports|sports|ports) {_VALUE}", "-m multiport $0--$1 $2", False),
        (r"^ADDRTYPE match (?=dst-type|src-type)", "", False),
        (rf"^(dst-type|src-type) {_VALUE}", "-m addrtype $0--$1 $2", False),
        (rf"^mark match {_VALUE}", "-m mark $0--mark $1", False),
        (rf"^(?:connmark|CONNMARK) match\s+{_VALUE}", "-m connmark $0--mark $1", False),
        (r"^(!?\s?)ctstate (\S+)", "-m conntrack $1 --ctstate $2", False),
        (r"^(!?\s?)ctstatus (\S+)", "-m conntrack $1 --ctstatus $2", False),
        (
            rf"^(ctorigsrcport|ctorigdstport|ctorigsrc|ctorigdst|ctreplsrc|ctrepldst|ctproto) {_VALUE}",
            "-m conntrack $0--$1 $2",
            False,
        ),
        (r"^ctdir (\S+)", "-m conntrack --ctdir $1", False),
        (r"^(!?\s?)state (\S+)", "-m state $1 --state $2", False),
        (r"^statistic mode random probability (\S+)", "-m statistic --mode random --probability $1", False),
        (r"^statistic mode nth every (\d+)(?: packet (\d+))?", "-m statistic --mode nth --every $1", False),
        (r"^(!?\s?)match-set (\S+) (\S+)", "-m set $1 --match-set $2 $3", False),
        (r"^limit: (?:avg|up to) (\S+) burst \d+", "-m limit --limit $1", False),
        (r"^recent: SET name: (\S+) side: \S+(?: mask: \S+)?", "-m recent --set --name $1", False),
        (r"^recent: (?:CHECK|UPDATE) .*?name: (\S+) side: \S+(?: mask: \S+)?", "-m recent --rcheck --name $1", False),
        (r"^icmptype (\d+)(?: code (\d+))?", "-m icmp --icmp-type $1/$2", False),
        (r"^ipv6-icmptype (\d+)(?: code (\d+))?", "-m icmp6 --icmpv6-type $1/$2", False),
        (r"^(!?\s?)owner UID match (\S+)", "-m owner $1 --uid-owner $2", False),
        (r"^(!?\s?)owner GID match (\S+)", "-m owner $1 --gid-owner $2", False),
        (r"^source IP range (\S+)", "-m iprange --src-range $1", False),
        (r"^destination IP range (\S+)", "-m iprange --dst-range $1", False),
        (r"^PHYSDEV match ((?:\s?(?:! )?--physdev-\S+(?: (?!-|!)\S+)?)+)", "-m physdev $1", False),
        (r"^policy match dir (\S+) pol (\S+)", "-m policy --dir $1 --pol $2", False),
        (r"^PKTTYPE = (\S+)", "-m pkttype --pkt-type $1", False),
        (r"^rpfilter( validmark)?( loose)?( invert)?", "RPFILTER", False),
        (r"^reject-with (.+)$", "--reject-with $1", True),
        (r"^to:(\S+)", "--to-destination $1", True),
        (r"^redir ports (\S+)", "--to-ports $1", True),
        (r"^(?:masq ports: \S+|random-fully|random|persistent)", "", True),
        (r"^MARK or (\S+)", "--or-mark $1", True),
        (r"^MARK and (\S+)", "--and-mark $1", True),
        (r"^MARK xor (\S+)", "--xor-mark $1", True),
        (r"^MARK xset (\S+)", "--set-xmark $1", True),
        (r"^MARK set (\S+)", "--set-xmark $1", True),
        (r"^CONNMARK (save|restore)(?: mask (\S+))?$", "CONNMARK", True),
        (r"^CONNMARK or (\S+)", "--or-mark $1", True),
        (r"^CONNMARK xset (\S+)", "--set-xmark $1", True),
        (r"^CONNMARK set (\S+)", "--set-xmark $1", True),
        (r"^(?:CT )?notrack", "--notrack", True),
        (r"^NFQUEUE (?:num|balance) (\S+)(?: bypass)?", "--queue-num $1", True),
        (r"^LOG flags .*$", "", True),
        (r"^nflog-.*$", "", True),
    )
)


def saved_from_specs(lines: list[str], table: str = "") -> str:
    """`iptables -S` (also of several tables, one after the other) as iptables-save text. `table` is the one that was asked."""
    blocks: list[list[str]] = [[]]
    rest = []
    for line in lines:
        if not line.startswith(("-", "[")) or line.startswith("[."):
            rest += [] if line.startswith("#") else [line]
            continue
        starts = line.startswith("-P ") and blocks[-1] and not blocks[-1][-1].startswith("-P ")
        if starts:
            blocks.append([])
        blocks[-1].append(line)
    tables = _Tables(table)
    return "".join([*(_block_of_specs(block, tables) for block in blocks), *(f"{line}\n" for line in rest)])


def _block_of_specs(lines: list[str], tables: _Tables) -> str:
    policies = {words[1]: words[2] for line in lines if (words := line.split()) and words[0] == "-P" and len(words) > 2}
    if not policies and not tables.asked:  # of a chain of its own: the reader of excerpts finds out where it stands
        return "".join(f"{line}\n" for line in lines if not line.startswith("-N "))
    heads = [f":{name} {policy} [0:0]" for name, policy in policies.items()]
    heads += [f":{line.split()[1]} - [0:0]" for line in lines if line.startswith("-N ") and len(line.split()) > 1]
    return _text(
        tables.next(frozenset(policies)), heads, [line for line in lines if line.startswith(("-A ", "["))], policies
    )


class _Tables:
    """Which table each listing of one text is of: the one that was asked for, or the one that has such chains."""

    def __init__(self, asked: str) -> None:
        self.asked, self._taken = asked, set[str]()

    def next(self, built_in: frozenset[str]) -> str:
        if self.asked:
            return self.asked
        table = _BUILT_IN.get(built_in, "filter" if built_in <= _FILTER else "nat")
        if table == "filter" and table in self._taken:
            table = "security"
        self._taken.add(table)
        return table


def _text(table: str, heads: list[str], rules: list[str], listed: Container[str]) -> str:
    """The text of a table. A base chain that was not listed has a rule that can't be read: it is not empty."""
    missing = [name for name in _NEEDED.get(table, ()) if name not in listed]
    rules = [
        f'-A {name} --unread "which {table} may have: chain {name} was not listed" -j UNREAD' for name in missing
    ] + rules
    return "\n".join((LISTED, f"*{table}", *heads, *rules, "COMMIT", ""))


def saved_from_listing(lines: list[str], asked: str = "") -> str:
    """`iptables -L` (best with -n -v) as iptables-save text. Without -v devices are not shown: no rule is whole.

    `asked` is the table that the command above the listing names.
    """
    blocks: list[dict[str, tuple[str | None, list[str]]]] = [{}]
    chain, verbose = "", False
    for line in lines:
        if match := _CHAIN.match(line):
            chain = match.group(1)
            if chain in blocks[-1] or (chain in _NAMES and set(blocks[-1]) - _NAMES):
                blocks.append({})
            blocks[-1][chain] = (match.group(2), [])
        elif re.match(r"^\s*(?:num\s+)?(?:pkts\s+bytes\s+)?target\s+prot", line):
            verbose = "pkts" in line
        elif line.strip() and chain:
            blocks[-1][chain][1].append(_rule(chain, line, verbose=verbose))
    tables = _Tables(asked)
    texts = []
    for block in filter(None, blocks):
        rules = [rule for _, rules in block.values() for rule in rules]
        built_in = frozenset(block) & _NAMES
        if not built_in and not asked:  # which table's they are is not known
            texts.append("".join(f"{rule}\n" for rule in rules))
            continue
        heads = [f":{name} {policy or '-'} [0:0]" for name, (policy, _) in block.items()]
        texts.append(_text(tables.next(built_in), heads, rules, built_in))
    return "".join(texts)


def _rule(chain: str, line: str, *, verbose: bool) -> str:
    match = (_VERBOSE if verbose else _SHORT).match(line)
    if match is None:
        return f'-A {chain} --unread "{_quoted(line.strip())}" -j UNREAD'
    given = match.groupdict()
    words = [f"-A {chain}"]
    for option, key, everything in (
        ("-p", "prot", ("all", "0")),
        ("-s", "src", _EVERYWHERE),
        ("-d", "dst", _EVERYWHERE),
    ):
        value = given[key].removesuffix("--") or given[key]  # a long name of a protocol touches the next column
        if value not in everything:
            words.append(_option(option, value))
    if verbose:
        words += [_option(o, given[k]) for o, k in (("-i", "iif"), ("-o", "oif")) if given[k] not in ("*", "any")]
    else:
        words.append("--unread devices")
    matches, target = _extras(given["rest"].strip(), given["target"] or "")
    words += matches
    if given["target"]:
        goes = "-g" if "[goto]" in given["rest"] else "-j"
        words.append(f"{goes} {given['target']} {target}".rstrip())
    return " ".join(words)


def _option(option: str, value: str) -> str:
    return f"! {option} {value[1:].strip()}" if value.startswith("!") else f"{option} {value}"


def _quoted(text: str) -> str:
    return text.replace("\\", "").replace('"', "'")


def _extras(rest: str, target: str) -> tuple[list[str], str]:
    """(options of matches, options of the target) of what stands behind the addresses."""
    matches: list[str] = []
    options: list[str] = []
    for piece in re.split(r"(/\* .*? \*/)", rest.replace("[goto]", "")):
        if piece.startswith("/* "):
            matches.append(f'-m comment --comment "{_quoted(piece[3:-3])}"')
            continue
        for is_target, text in _pieces(piece.strip()):
            (options if is_target else matches).append(text)
    return matches, " ".join(filter(None, options))


def _pieces(text: str) -> Iterator[tuple[bool, str]]:
    while text:
        for pattern, options, is_target in _EXTRAS:
            if match := pattern.match(text):
                if filled := _filled(options, match):
                    yield is_target, filled
                text = text[match.end() :].strip()
                break
        else:
            word, _, text = text.partition(" ")
            yield False, f"--unread {word.strip(chr(34))}"
            text = text.strip()


def _filled(options: str, match: re.Match[str]) -> str:
    groups = [(group or "").strip() for group in match.groups()]
    if options == "FLAGS":
        return f"{'! ' if groups[0] else ''}--tcp-flags {_flags(groups[1])} {_flags(groups[2])}"
    if options == "RPFILTER":
        return " ".join(["-m rpfilter", *(f"--{group}" for group in groups if group)])
    if options == "CONNMARK":
        mask = groups[1] or "0xffffffff"
        return f"--{groups[0]}-mark --nfmask {mask} --ctmask {mask}"
    negated = ""
    for number, group in enumerate(groups, 1):
        if group.startswith("!") and len(group) > 1:
            negated, group = "! ", group[1:].strip()
        options = options.replace(f"${number}", group)
    return options.replace("$0", negated).replace("  ", " ").replace("/ ", " ").removesuffix("/")


def _flags(number: str) -> str:
    names = ("FIN", "SYN", "RST", "PSH", "ACK", "URG")
    return ",".join(name for bit, name in enumerate(names) if int(number, 16) >> bit & 1) or "NONE"
