"""How a batch that runs is shown on stderr: as lines, as a table that moves, or as JSON for programs."""
