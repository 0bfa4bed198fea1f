"""What a training will take, before it is started: memory, hours, money."""
