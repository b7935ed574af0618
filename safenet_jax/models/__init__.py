"""Networks: layer records, architectures, the Flax network.

- `layers`: the records that a network is made of, and the walk over them
- `architectures`: networks by name: CNN-7, VGG-16, ResNets
- `network`: the network in Flax
- `weights`: weights by name, and those of PyTorch's ResNets
- `convolution`: the convolution that is fast on a CPU inside a loop
- `gemm_convolution`: the same for a population, as a product of matrices
- `compilation`: `jax.jit` with the options under which networks train fast on a CPU
"""
