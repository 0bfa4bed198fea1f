"""The command line: parses, calls the SDK, shows what came of it."""
