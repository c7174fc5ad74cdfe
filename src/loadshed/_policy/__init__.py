"""What is decided: pure state machines.

No await, no clock, no global random numbers, no socket, no logging: every call takes an event and
the time, changes the state in one step and returns what follows. The shells carry it out, and so
does a simulation in virtual time.
"""
