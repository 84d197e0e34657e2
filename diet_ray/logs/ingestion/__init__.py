"""From files to a log of blocks: three passes over the files, and the checks of every value on the way."""
