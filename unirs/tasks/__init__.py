"""What a task plugin is made of. Importing it loads no torch."""
