"""A flow's walk through a node's rules for a person: a tree, chain by chain, with counters and what decided."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text
from rich.tree import Tree

from kubectl_genainet.proxy.walked import FlowWalk, WalkChain, WalkRule, WalkWay
from kubectl_genainet.render.text import printable


def walk_tree(walk: FlowWalk) -> RenderableType:
    """One tree a way. The rule that decided is marked, and says what it decided."""
    node = f" on {walk.node}" if walk.node else ""
    head = Text(f"{printable(walk.flow)}{printable(node)}: {walk.verdict}", style="bold")
    notes = [Text(f"not known: {printable(what)}", style="yellow") for what in walk.unknown]
    notes += [Text(f"taken for granted: {printable(what)}", style="dim") for what in walk.assumed]
    return Group(head, *notes, *map(_way, walk.ways))


def _way(way: WalkWay) -> Tree:
    share = "" if way.share in (None, 1) else f"{way.share:.0%} "
    to = f" to {way.to}" if way.to and way.verdict == "DNAT" else ""
    title = f"{share}{way.verdict}{to}"
    if way.masquerade:
        title += ", masqueraded"
    if way.alike:
        title += f" (and {way.alike} more that end so)"
    if way.reason:
        title += f": {printable(way.reason)}"
    tree = Tree(Text(title, style="bold"))
    for answer in way.presumed:
        tree.add(Text(f"this way if {printable(answer.removeprefix('whether '))}", style="yellow"))
    for chain in way.chains:
        branch = tree.add(_chain_title(chain))
        for rule in chain.rules:
            _add(branch, rule)
    return tree


def _chain_title(chain: WalkChain) -> Text:
    where = f"{chain.hook} ({chain.priority})  " if chain.hook else ""
    title = Text(f"{where}{printable(chain.table)} {printable(chain.chain)}")
    if not chain.rules:
        title.append("  no rule matches", style="dim")
    return title


def _add(branch: Tree, rule: WalkRule) -> None:
    line = Text(f"{printable(rule.chain)} {rule.index or 'policy'}  ")
    if rule.packets is not None:
        line.append(f"[{rule.packets} packets] ", style="dim")
    line.append(printable(rule.text))
    if rule.comment and rule.comment not in rule.text:
        line.append(f"  {printable(rule.comment)}", style="dim")
    if rule.author:
        line.append(f"  ({rule.author})", style="dim")
    if rule.decides:
        line.stylize("bold")
        line.append(f"  <- {rule.decides}", style="bold red" if rule.decides in ("drops", "rejects") else "bold green")
    below = branch.add(line)
    for inner in rule.rules:
        _add(below, inner)
