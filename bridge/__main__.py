"""`python -m bridge` is `nb-bridge`."""

from bridge.cli import main

main()
