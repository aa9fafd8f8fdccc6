"""
Running one claimed task: its context, its body, and the outcome it comes to.

Nothing here writes a row, but for an atomic body, whose completion shares its
transaction.
"""
