"""Places that are not on this machine: object stores through fsspec, and web servers to read from."""
