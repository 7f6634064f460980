"""The graph of an export for network analysis: NetworkX, and the files that NetworkX, Gephi and Cytoscape read."""
