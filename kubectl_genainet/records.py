"""The JSON Schema of every record that `-o json` prints: docs/schema.json.

python -m kubectl_genainet.records > docs/schema.json
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from kubectl_genainet.doctor.facts import Fact
from kubectl_genainet.doctor.objects.recognise import Recognised
from kubectl_genainet.doctor.report import Accepted, CheckResult
from kubectl_genainet.model.finding import Finding, NotChecked
from kubectl_genainet.model.results.diagnosis import Conclusion
from kubectl_genainet.model.results.dns import DnsSummary
from kubectl_genainet.model.results.drops import DropRow, DropSummary
from kubectl_genainet.model.results.exchange import DnsExchange
from kubectl_genainet.model.results.fabric import FabricSummary
from kubectl_genainet.model.results.fleet import AgentStatus, Versions
from kubectl_genainet.model.results.lab import LabStatus
from kubectl_genainet.model.results.losses import Losses
from kubectl_genainet.model.results.path import PacketPath
from kubectl_genainet.model.results.timeline import Timeline
from kubectl_genainet.model.results.trace import TraceSummary
from kubectl_genainet.proxy.batch import FlowResult
from kubectl_genainet.proxy.drift.ways import ServiceWay
from kubectl_genainet.proxy.exact import RuleCount
from kubectl_genainet.proxy.firewall.opening import HostFirewall
from kubectl_genainet.proxy.iptables.ipset import IpSet
from kubectl_genainet.proxy.ipvs.read import VirtualServer
from kubectl_genainet.proxy.report import RulesRow
from kubectl_genainet.proxy.walked import FlowWalk
from kubectl_genainet.render.doctor.data import SummaryJson
from kubectl_genainet.render.policy.beyond import CellJson
from kubectl_genainet.render.policy.json import ExplanationJson, FlowJson, LineErrorJson
from kubectl_genainet.render.policy.matrix import DifferenceJson

DIALECT = "https://json-schema.org/draft/2020-12/schema"


@dataclass(frozen=True, slots=True)
class RecordType:
    """A type of record. `kind` is what the command puts before its fields; "" where the type has its own, or none."""

    type: Any
    kind: str = ""

    def roundtrip(self, value: dict[str, Any]) -> dict[str, Any]:
        """The value read as this type and written again. Raises msgspec.ValidationError where it is none of it."""
        if self.kind and value.get("kind") != self.kind:
            raise msgspec.ValidationError(f"kind is {value.get('kind')!r}, not {self.kind!r}")
        fields = {name: part for name, part in value.items() if name != "kind"} if self.kind else value
        written: dict[str, Any] = msgspec.to_builtins(msgspec.convert(fields, self.type, strict=False))
        return {"kind": self.kind, **written} if self.kind else written


# command line -> what its lines are
RECORDS: dict[str, tuple[RecordType, ...]] = {
    "trace": (RecordType(PacketPath), RecordType(TraceSummary), RecordType(Losses)),
    "drops": (RecordType(DropRow), RecordType(DropSummary)),
    "diagnose": (RecordType(Conclusion),),
    "timeline": (RecordType(Timeline),),
    "dns": (RecordType(DnsExchange), RecordType(DnsSummary)),
    "explain": (RecordType(ExplanationJson),),
    "explain --flows": (RecordType(FlowJson), RecordType(LineErrorJson)),
    "matrix": (RecordType(CellJson),),
    "matrix --diff": (RecordType(DifferenceJson),),
    "rules": (
        RecordType(RulesRow),
        RecordType(ServiceWay),
        RecordType(FlowWalk),
        RecordType(HostFirewall),
        RecordType(Finding, "finding"),
        RecordType(NotChecked, "not-checked"),
        RecordType(VirtualServer, "virtual-server"),
        RecordType(IpSet, "ipset"),
    ),
    "rules --exact": (RecordType(RuleCount),),
    "rules --flows": (RecordType(FlowResult),),
    "fabric": (RecordType(FabricSummary),),
    "doctor": (
        RecordType(Fact, "fact"),
        RecordType(Recognised, "workload"),
        RecordType(Finding, "finding"),
        RecordType(Accepted, "accepted"),
        RecordType(NotChecked, "not_checked"),
        RecordType(CheckResult, "check"),
        RecordType(SummaryJson, "summary"),
    ),
    "status": (RecordType(AgentStatus),),
    "version": (RecordType(Versions),),
    "lab status": (RecordType(LabStatus),),
    "lab list": (RecordType(LabStatus),),
}


def schema() -> dict[str, Any]:
    """For each command the schema of one line, and the types that they share in `$defs`."""
    commands, components = schemas_of(RECORDS)
    return {
        "$schema": DIALECT,
        "title": "The records of kubectl genainet -o json: one object a line",
        "description": "`properties` has the schema of a line for each command.",
        "properties": commands,
        "$defs": components,
    }


def schemas_of(commands: Mapping[str, tuple[RecordType, ...]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(the schema of one line by command, the types that they share by name)."""
    types = list({record.type: None for records in commands.values() for record in records})
    schemas, components = msgspec.json.schema_components(types, ref_template="#/$defs/{name}")
    by_type = dict(zip(types, schemas, strict=True))
    lines = {
        command: {"anyOf": [_of_kind(by_type[record.type], record.kind) for record in records]}
        for command, records in commands.items()
    }
    return lines, {name: _described(component) for name, component in components.items()}


def _described(component: dict[str, Any]) -> dict[str, Any]:
    """With a docstring's indentation taken away, which msgspec does since 0.23."""
    text = component.get("description")
    return component if text is None else {**component, "description": inspect.cleandoc(text)}


def _of_kind(schema: dict[str, Any], kind: str) -> dict[str, Any]:
    if not kind:
        return schema
    return {"allOf": [schema, {"properties": {"kind": {"const": kind}}, "required": ["kind"]}]}


def schema_text() -> str:
    """docs/schema.json, with its last newline."""
    return json.dumps(schema(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    print(schema_text(), end="")
