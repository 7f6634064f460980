"""Many jobs become outcomes: a queue hands them to an executor as room allows, and listeners are told."""
