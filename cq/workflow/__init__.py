"""
What follows what: every change of a task, in a transaction, synchronous.

A task enters through `enqueue` and every run leaves through `completion`; between them
stand the claim, what follows an end (`settle`), revoke, retry and rescue. Nothing leaves
the process before the commit.
"""
