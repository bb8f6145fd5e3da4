"""`unirs serve`: an HTTP service with the meaning of OpenAI's chat completions. Needs `unirs[serve]`."""
