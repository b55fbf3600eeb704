"""`python -m kubectl_genainet`: the same as `kubectl genainet`."""

from kubectl_genainet.cli import main

main()
