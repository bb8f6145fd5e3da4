"""`unirs demo`: a page that answers questions about uploaded media. Needs `unirs[demo]`."""
