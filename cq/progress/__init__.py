"""
What watchers see: the record of lines, the state of tasks, and how both are told.

The rows are the record; events are hints about them, sent only where somebody watches.
"""
