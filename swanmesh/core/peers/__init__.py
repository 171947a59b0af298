"""Which peers and blocks there are: their files, who was met under blocks, and the brake on removing many."""
