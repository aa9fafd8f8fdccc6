"""
What a person at a terminal sees of tasks: found by a prefix, followed, drawn.

The commands `cq_watch`, `cq_status`, `cq_run` and `cq_doctor` are thin doors to this room. It
reads rows, like any page, and moves none. rich is used where it is installed and the
output is a terminal; without either there are plain lines.
"""
