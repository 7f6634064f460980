"""What an export's folder holds, read back: rows of its tables, and the model that they describe."""
