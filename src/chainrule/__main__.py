"""`python -m chainrule` is the command line."""

from chainrule.cli.commands import main

main()
