"""`python -m kosmos2` is `kosmos2`."""

from kosmos2.cli import main

main()
