"""nftables JSON expressions as nft would list them, for rules that came as JSON."""

from __future__ import annotations

from typing import Any


def show_expressions(expressions: list[Any]) -> str:
    return " ".join(filter(None, map(_shown, expressions)))


def _shown(entry: Any) -> str:
    """A statement as text; as its JSON where it is not as libnftables writes it."""
    try:
        return _statement(entry)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):
        return str(entry)


def _statement(entry: Any) -> str:
    if not isinstance(entry, dict) or not entry:
        return str(entry)
    (kind, body), *_ = entry.items()
    match kind:
        case "match":
            op = "" if body["op"] in ("==", "in") else f"{body['op']} "
            return f"{_value(body['left'])} {op}{_value(body['right'])}"
        case "vmap":
            return f"{_value(body['key'])} vmap {_value(body['data'])}"
        case "jump" | "goto" if "rules" in body:
            return f"{kind} {{ {'; '.join(str(rule.get('text', '')) for rule in body['rules'])} }}"
        case "jump" | "goto":
            return f"{kind} {body['target']}"
        case "log":
            options = [
                f'{key} "{value}"' if key == "prefix" else f"{key} {value}" for key, value in (body or {}).items()
            ]
            return " ".join(["log", *options])
        case "limit" | "quota" | "ct count":
            return _amount(kind, body)
        case "accept" | "drop" | "return" | "continue" | "notrack":
            return str(kind)
        case "mangle":
            return f"{_value(body['key'])} set {_value(body['value'])}"
        case "dnat" | "snat" | "masquerade" | "redirect":
            return _nat(kind, body or {})
        case "counter":
            return "counter"  # what it had counted when the rule was read says nothing of the packet that is judged
        case "reject":
            return f"reject with {body['type']} {body['expr']}" if body and "expr" in body else "reject"
        case "set":
            return f"{body['op']} {body['set']} {{ {_value(body['elem'])} }}"
        case "xt":
            return f"xt {body.get('type', '')} {body.get('name', '')}" if isinstance(body, dict) else "xt"
        case "queue":
            return f"queue to {_value(body['num'])}" if isinstance(body, dict) and "num" in body else "queue"
    return str(kind) if body is None else f"{kind} {_value(body)}"


def _amount(kind: str, body: Any) -> str:
    if not isinstance(body, dict):
        return f'{kind} name "{body}"'
    if "text" in body:
        return f"{kind} {body['text']}"
    over = "over " if body.get("inv") else ""
    if kind == "limit":
        unit = body.get("rate_unit", "packets")
        rate = f"{body.get('rate')}{'' if unit == 'packets' else f' {unit}'}/{body.get('per', 'second')}"
        return f"limit rate {over}{rate}"
    return f"{kind} {over}{body.get('val')} {body.get('val_unit', '')}".rstrip()


def _nat(kind: str, body: dict[str, Any]) -> str:
    to = _value(body["addr"]) if "addr" in body else ""
    if "port" in body:
        port = _value(body["port"])
        to = f"[{to}]:{port}" if ":" in to else f"{to}:{port}"
    flags = body.get("flags", "")
    flags = flags if isinstance(flags, str) else " ".join(flags)
    return " ".join(filter(None, (kind, f"to {to}" if to else "", flags)))


def _value(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(_value, value))
    if not isinstance(value, dict) or not value:
        return str(value)
    (kind, body), *_ = value.items()
    match kind:
        case "payload" if "field" in body:
            return f"{body['protocol']} {body['field']}"
        case "meta":
            return f"meta {body['key']}"
        case "ct":
            return " ".join(filter(None, ("ct", body.get("dir", ""), body["key"])))
        case "fib":
            return f"fib {' . '.join(body.get('flags', []))} {body['result']}"
        case "concat":
            return " . ".join(map(_value, body))
        case "prefix":
            return f"{_value(body['addr'])}/{body['len']}"
        case "range":
            return f"{_value(body[0])}-{_value(body[1])}"
        case "numgen":
            return f"numgen {body['mode']} mod {body['mod']}"
        case "set" if isinstance(body, list):
            return f"{{ {', '.join(map(_element, body))} }}"
        case "map":
            return f"{_value(body['key'])} map {_value(body['data'])}"
        case "elem":
            return _value(body["val"])
        case "&" | "|" | "^" | "<<" | ">>":
            return f"{_value(body[0])} {kind} {_value(body[1])}"
    return str(value)


def _element(element: Any) -> str:
    if isinstance(element, list) and len(element) == 2:
        target = element[1]
        shown = _statement(target) if isinstance(target, dict) and not _is_value(target) else _value(target)
        return f"{_value(element[0])} : {shown}"
    return _value(element)


def _is_value(target: dict[str, Any]) -> bool:
    return next(iter(target)) in ("concat", "prefix", "range")
