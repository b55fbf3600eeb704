"""The always-on mode: metrics and OTLP logs."""
