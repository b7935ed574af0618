"""The mode `delphi`: linear layers under encryption offline, one round trip a layer online."""
