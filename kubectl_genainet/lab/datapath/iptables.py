"""iptables rules as text that iptables-restore reads."""

from __future__ import annotations

BUILTIN_CHAINS = {
    "raw": ("PREROUTING", "OUTPUT"),
    "mangle": ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"),
    "nat": ("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"),
    "filter": ("INPUT", "FORWARD", "OUTPUT"),
}


class Tables:
    """Chains with their rules, by table. A rule is what follows "-A CHAIN"."""

    def __init__(self) -> None:
        self._tables: dict[str, dict[str, list[str]]] = {}

    def chain(self, table: str, name: str) -> list[str]:
        """The rules of a chain, which is made where it does not exist yet."""
        chains = self._tables.get(table)
        if chains is None:
            chains = self._tables[table] = {builtin: [] for builtin in BUILTIN_CHAINS[table]}
        return chains.setdefault(name, [])

    def append(self, table: str, chain: str, *arguments: str) -> None:
        self.chain(table, chain).append(" ".join(arguments))

    def prepend(self, table: str, chain: str, *arguments: str) -> None:
        self.chain(table, chain).insert(0, " ".join(arguments))

    def restore_text(self) -> str:
        """Input of iptables-restore that replaces each table as a whole: built-in chains first, then by name."""
        return "".join(self._table_text(table) for table in sorted(self._tables))

    def _table_text(self, table: str) -> str:
        chains = self._tables[table]
        builtin = BUILTIN_CHAINS[table]
        names = [*builtin, *sorted(c for c in chains if c not in builtin)]
        lines = [f"*{table}"]
        lines += [f":{name} {'ACCEPT' if name in builtin else '-'} [0:0]" for name in names]
        lines += [f"-A {name} {rule}" for name in names for rule in chains[name]]
        return "\n".join([*lines, "COMMIT", ""])


def comment(text: str) -> str:
    return f'-m comment --comment "{text}"'
