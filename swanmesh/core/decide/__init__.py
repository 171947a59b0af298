"""What follows: one pair and `now` give one decision."""
