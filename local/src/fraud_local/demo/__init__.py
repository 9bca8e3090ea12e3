"""`make demo`: the whole platform at work on one machine, with evidence that a stranger can recompute.

``__main__`` drives from outside the cluster; ``drive`` runs inside it, as a Pod; ``summary`` computes the
numbers from what both left, and ``checks`` says whether they pass.
"""
