"""The guard: kernel policies of our own that hold clear text back, and what the kernel holds of them."""
