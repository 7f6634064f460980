"""Questions about many exports: DuckDB over their tables."""
