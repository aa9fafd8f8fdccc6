"""
The benchmarks: cq and its peers at the same work, beside what the bare servers can do.

`make bench` measures cq alone and guards its ratios, `make bench-peers` everything side by side,
`make bench-growth` cq against what piles up. Everybody runs with default settings, as far as
`settings` of each contender does not say otherwise; cq with leases, fence, heartbeats, logs and
stored results.
"""
