"""`python -m exporter` is `export-model`."""

from exporter.cli import main

raise SystemExit(main())
