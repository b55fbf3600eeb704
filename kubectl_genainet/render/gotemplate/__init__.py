"""`-o go-template=TEMPLATE`: the part of Go's text/template that reads values (ADR 0122)."""
