"""Commands besides `export` and `view`, imported when they are used."""
