"""`loadshed demo`: watch a real server stay up under ten times its load.

It starts uvicorn servers as child processes on loopback and drives them with real HTTP, first
with nine requests that tell the story, then with far more than the service can take.

==============  ====================================================================
`command`       the subcommand: its options, and the order of events
`experiment`    two run, two wait, five are turned away: one request at a time
`overload`      one run for each offered load, without and with loadshed
`load`          the clients of such a run: when they come, and how each of them ended
`figures`       what those endings amount to: goodput, percentiles, lateness
`report`        what the terminal shows
`picture`       the same as an SVG
`chart`         what such a picture is made of: a panel, curves, labels
`client`        one HTTP request over a connection of its own
`servers`       the child processes, seen from the parent
`child`         the same, seen from inside
`apps`          the two applications that they serve
==============  ====================================================================
"""
