"""One address pair: its associations, what they must be, who initiates, and whether data passes."""
