"""`python -m loadshed` is the `loadshed` command."""

from loadshed._command import main

main()
