"""The mode `gazelle`: linear layers under encryption online, circuits prepared offline."""
