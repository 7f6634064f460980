"""`python -m exporter` is `export-model`."""

from exporter.early_start import main

raise SystemExit(main())
