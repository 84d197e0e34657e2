"""From files to a log of blocks: three passes over the files, with checks of every value."""
