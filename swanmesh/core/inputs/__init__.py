"""What comes in: each module takes one kind of fact into the state."""
