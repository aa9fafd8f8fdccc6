"""
What a task is: plain values without Django, without input or output.

Names, options, signatures, arguments, schedules and outcomes are described here and
nowhere else; everything above this room passes these values around.
"""
