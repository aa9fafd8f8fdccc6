"""Template tags of cq: `{% load cq %}`."""
