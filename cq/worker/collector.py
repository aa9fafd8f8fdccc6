"""
Python's cyclic garbage collector in a process that does nothing but run tasks.

Every task makes some dozens of objects that die together. By default the collector looks
through the youngest after 700 new ones, and now and then through everything that was ever
imported: together a sixth of the processor time of a small task.
"""

import gc

_OBJECTS = 10_000


def collect_seldom() -> None:
    """
    Look through less, and less often; what is loaded by now is taken to live for ever.

    Called once, in a process of our own: in one that is shared this is its owner's choice.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_OBJECTS, *gc.get_threshold()[1:])
