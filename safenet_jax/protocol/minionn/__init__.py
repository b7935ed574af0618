"""MiniONN: linear layers prepared offline as in Delphi, circuits garbled after the input."""
