"""The verbs `serve` and `chat`: arguments in, exit codes out. Everything heavy is imported when a verb runs."""
