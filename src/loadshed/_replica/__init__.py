"""What runs inside of a replica: a process that serves the calls of a pool.

It imports the standard library alone, and little of that: there are as many replicas as there are
processors, and each pays for it in memory and in the time that it takes to start.
"""
