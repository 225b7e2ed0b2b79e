"""`python -m horseshoe` is the command `horseshoe`."""

from horseshoe.cli import main

main()
