"""What a batch leaves behind about itself: a table, two pages to read, and a file for monitoring."""
