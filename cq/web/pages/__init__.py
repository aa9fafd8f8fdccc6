"""
cq's own pages: overview, tasks, repeating tasks, workers; at /cq/ and inside the admin.

A page reads figures, makes a context of plain values and renders one template, whole or,
for a page that is open and asks what is new, only its content.
"""
