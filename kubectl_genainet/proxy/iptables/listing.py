"""`iptables -S` and `iptables -L -n -v --line-numbers`, written as iptables-save text, which is then read.

What a listing says in other words is put into options; what is left over becomes an option that no match has, so that
the rule is known to be read in part. Source: iptables(8); the print functions of iptables' extensions.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator

from kubectl_genainet.proxy.evaluator.packet.protocols import PROTOCOLS
from kubectl_genainet.proxy.names import ENDPOINT_CHAINS, SERVICE_CHAINS

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
_OF_KUBE_PROXY = (*SERVICE_CHAINS, ENDPOINT_CHAINS, "KUBE-SERVICES", "KUBE-NODEPORTS", "KUBE-POSTROUTING", "KUBE-MARK-")
LISTED = "# From a listing"  # the first line of each table's text
_NAMES = frozenset({"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"})
_CHAIN = re.compile(r"^Chain (\S+) \((?:policy (\w+)|\d+ references)")
_NETWORKS = {  # names that mean the same on every node, where a listing was made without -n
    "loopback": "127.0.0.0",
    "localhost": "127.0.0.1",
    "link-local": "169.254.0.0",
    "base-address.mcast.net": "224.0.0.0",
}
_ADDRESS = r"!?(?:[0-9A-Fa-f:.]+(?:/[0-9A-Fa-f:.]+)?|(?:anywhere|loopback|localhost|link-local|[\w.-]+\.[\w.-]+)(?:/\d+)?)(?!\S)"
_NAME = r"!?[A-Za-z][\w.:-]*(?:/\d+)?(?!\S)"  # of a host, as the node that made the listing knows it
_OPTIONS = r"(?:--|-f|!f)\s+"  # ip6tables prints none


def _lines(options: str, address: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """(with -v, without) The lines of rules."""
    ends = rf"(?P<src>{address})\s+(?P<dst>{address})(?P<rest>.*)$"
    counters = r"(?P<packets>\d+[KMGT]?)\s+(?P<bytes>\d+[KMGT]?)\s+(?:(?P<target>\S+)\s+)??"
    devices = r"(?P<iif>\S+)\s+(?P<oif>\S+)\s+"
    target = r"(?:(?P<target>[^\s\d!]\S*)\s+)??"
    names = "|".join(sorted(PROTOCOLS, key=len, reverse=True))
    protocol = rf"(?P<prot>!?(?:{names}|\d+)(?:--)?)\s+{options}"
    return (
        re.compile(rf"^\s*(?:\d+\s+)?{counters}{protocol}{devices}{ends}"),
        re.compile(rf"^\s*(?:\d+\s+)?{target}{protocol}{ends}"),
    )


_VERBOSE, _SHORT = _lines(rf"(?:{_OPTIONS})?", _ADDRESS)
_VERBOSE_NAMED, _SHORT_NAMED = _lines(_OPTIONS, f"(?:{_ADDRESS}|{_NAME})")
_EVERYWHERE = ("0.0.0.0/0", "::/0", "anywhere")
_VALUE = r"(!?\s?[^\s]+)"
_PORT = r"(!?\s?\S+?(?=flags:|\s|$))"  # iptables before 1.4.21 puts no space before the flags
_ICMP_NAME = r"(?:echo|destination|source|time|parameter|timestamp|address|router)-[a-z-]+"
_RECENT = r"(?:CHECK|UPDATE|REMOVE)(?: seconds: \d+)?(?: reap)?"
_LIST = r"(?: TTL-Match)? name: (\S+) side: \S+(?: mask: \S+)?"
_HASHED = r"(?: (?:mode|htable-\w+|srcmask|dstmask|hash-name) \S+)+"
_FLAGS = r"(0x[0-9A-Fa-f]+|[A-Z]+(?:,[A-Z]+)*)"
# What `-L` prints of a match or a target -> the options; $1, $2 are what the groups held. "!" moves in front.
_EXTRAS: tuple[tuple[re.Pattern[str], str, bool], ...] = tuple(
    (re.compile(pattern), options, is_target)
    for pattern, options, is_target in (
        (r"^(?:tcp|udp|sctp|udplite|dccp)(?=\s|$)", "", False),
        (rf"^dpts?:{_PORT}", "$0--dport $1", False),
        (rf"^spts?:{_PORT}", "$0--sport $1", False),
        (rf"^(?:tcp )?(?:tcp)?flags:\s?(!? ?){_FLAGS}/{_FLAGS}", "FLAGS", False),
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
        (r"^recent: SET name: (\S+) side: \S+(?: mask: \S+)?", "-m recent --set --name $1", False),
        (rf"^(!?\s?)recent: {_RECENT} hit_count: (\d+){_LIST}", "-m recent $1 --rcheck --hitcount $2 --name $3", False),
        (rf"^(!?\s?)recent: {_RECENT}{_LIST}", "-m recent $1 --rcheck --name $2", False),
        (r"^#conn (?:src|dst)/\S+ <= (\d+)", "-m connlimit --connlimit-upto $1", False),
        (r"^#conn (?:src|dst)/\S+ > (\d+)", "-m connlimit --connlimit-above $1", False),
        (rf"^limit: up to (\S+) burst \d+{_HASHED}", "-m hashlimit --hashlimit-upto $1", False),
        (rf"^limit: above (\S+) burst \d+{_HASHED}", "-m hashlimit --hashlimit-above $1", False),
        (r"^limit: (?:avg|up to) (\S+) burst \d+", "-m limit --limit $1", False),
        (r"^icmptype (\d+)(?: code (\d+))?", "-m icmp --icmp-type $1/$2", False),
        (r"^icmp (!?)type (\d+)(?: code (\d+))?", "-m icmp $1 --icmp-type $2/$3", False),
        (rf"^icmp (!?)({_ICMP_NAME})", "-m icmp $1 --icmp-type $2", False),
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
        (r"^LOG (?:flags|level) .*$", "", True),
        (r"^nflog-.*$", "", True),
    )
)


def saved_from_specs(lines: list[str], table: str = "") -> str:
    """`iptables -S` (also of several tables, one after the other) as iptables-save text. `table` is the one that was asked."""
    blocks: list[list[str]] = [[]]
    other_lines = []
    for line in lines:
        if not line.startswith(("-", "[")) or line.startswith("[."):
            other_lines += [] if line.startswith("#") else [line]
            continue
        starts = line.startswith("-P ") and blocks[-1] and not blocks[-1][-1].startswith("-P ")
        if starts:
            blocks.append([])
        blocks[-1].append(line)
    tables = _Tables(table)
    return "".join([*(_block_of_specs(block, tables) for block in blocks), *(f"{line}\n" for line in other_lines)])


def _block_of_specs(lines: list[str], tables: _Tables) -> str:
    policies = {
        tokens[1]: tokens[2] for line in lines if (tokens := line.split()) and tokens[0] == "-P" and len(tokens) > 2
    }
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
    saved_tables = []
    for block in filter(None, blocks):
        rules = [rule for _, rules in block.values() for rule in rules]
        built_in = frozenset(block) & _NAMES
        if not built_in and not asked:  # which table's they are is not known
            saved_tables.append("".join(f"{rule}\n" for rule in rules))
            continue
        heads = [f":{name} {policy or '-'} [0:0]" for name, (policy, _) in block.items()]
        saved_tables.append(_text(tables.next(built_in), heads, rules, built_in))
    return "".join(saved_tables)


def _rule(chain: str, line: str, *, verbose: bool) -> str:
    patterns = (_VERBOSE, _VERBOSE_NAMED) if verbose else (_SHORT, _SHORT_NAMED)
    match = next((match for pattern in patterns if (match := pattern.match(line))), None)
    if match is None:
        return f'-A {chain} --unread "{_quoted(line.strip())}" -j UNREAD'
    columns = match.groupdict()
    options = [f"-A {chain}"]
    for option, key, everything in (
        ("-p", "prot", ("all", "0")),
        ("-s", "src", _EVERYWHERE),
        ("-d", "dst", _EVERYWHERE),
    ):
        value = columns[key].removesuffix("--") or columns[key]  # a long name of a protocol touches the next column
        if value not in everything:
            options.append(_option(option, _numeric(value)))
    if verbose:
        options += [_option(o, columns[k]) for o, k in (("-i", "iif"), ("-o", "oif")) if columns[k] not in ("*", "any")]
    else:
        options += [] if _is_without_devices(chain, columns["target"] or "") else ["--unread devices"]
    matches, target = _extras(columns["rest"].strip(), columns["target"] or "")
    options += matches
    if columns["target"]:
        goes = "-g" if "[goto]" in columns["rest"] else "-j"
        options.append(f"{goes} {columns['target']} {target}".rstrip())
    return " ".join(options)


def _is_without_devices(chain: str, target: str) -> bool:
    """Rules of kube-proxy that name no device: all but what masquerades, which may ask for the pods' bridge."""
    return (chain.startswith(_OF_KUBE_PROXY) and target != "KUBE-MARK-MASQ") or target in (
        "KUBE-SERVICES",
        "KUBE-NODEPORTS",
    )


def _numeric(address: str) -> str:
    """An address with the numbers of a network that has the same name everywhere (/etc/networks, /etc/hosts)."""
    name, slash, length = address.removeprefix("!").partition("/")
    return f"{'!' if address.startswith('!') else ''}{_NETWORKS.get(name, name)}{slash}{length}"


def _option(option: str, value: str) -> str:
    return f"! {option} {value[1:].strip()}" if value.startswith("!") else f"{option} {value}"


def _quoted(text: str) -> str:
    return text.replace("\\", "").replace('"', "'")


def _extras(extras: str, target: str) -> tuple[list[str], str]:
    """(options of matches, options of the target) of what stands behind the addresses."""
    matches: list[str] = []
    options: list[str] = []
    extras = extras.replace("[goto]", "")
    while extras:
        between, opening, behind = extras.partition("/* ")
        comment, closing, extras = behind.partition(" */")
        if opening and not closing:
            between += opening + comment
        for is_target, text in _pieces(between.strip()):
            (options if is_target else matches).append(text)
        if closing:
            matches.append(f'-m comment --comment "{_quoted(comment)}"')
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
            yield False, f"--unread {word.strip(chr(34)) or 'quote'}"
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
    """Names of flags, which `-L` prints as a number with -n."""
    if not number.startswith("0x"):
        return number
    names = ("FIN", "SYN", "RST", "PSH", "ACK", "URG")
    return ",".join(name for bit, name in enumerate(names) if int(number, 16) >> bit & 1) or "NONE"
