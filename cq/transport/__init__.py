"""
The wire: what leaves this process through a channel layer, and how.

Messages are doorbells on the task layer, events go to groups of the browser layer. Both
are hints: the rows decide, so everything here may lose, double or delay without harm.
"""
