"""Tables and figures from what a workdir holds."""
