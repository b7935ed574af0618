"""Plans (ratio, degree), channel importance, and the approximated activation."""
