"""The mode `ot`: as Delphi's, with sign tests by oblivious transfer in the place of garbling."""
