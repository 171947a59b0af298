"""Whether the kernel's data path is right, in guests with the kernels that hosts of a mesh have."""
