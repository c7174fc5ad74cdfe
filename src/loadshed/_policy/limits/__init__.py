"""Limits: how many may be ongoing, as a number or found from what happens.

- `limit`: what a limit is, and the fixed one.
- `knee`: the one that needs no number, and its `evidence`.
- `moving`: what all that move have in common.
- `aimd`, `vegas`, `gradient2`: the rules of TCP and of Netflix, for those who come from elsewhere.
"""
