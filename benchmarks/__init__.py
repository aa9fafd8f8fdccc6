"""
The benchmarks: what cq does per second, counted from rows in the database.

`make bench` starts private servers and runs `python -m benchmarks`. Everything runs with
cq's default settings: leases, fence, heartbeats, logs and stored results.
"""
