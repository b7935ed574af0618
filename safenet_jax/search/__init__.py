"""The search: score, one member, populations, PBT and its binary tree."""
