"""
The process behind cq_runworker: what listens, claims, runs, beats and ends in order.

Bells and signals enter, claimed tasks are run, and completions leave to the rows.
"""
