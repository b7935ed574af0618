"""Networks: layer records, architectures, the Flax network.

- `layers`: the records that a network is made of, and the walk over them
- `architectures`: networks by name: CNN-7, VGG-16, ResNets
- `network`: the network in Flax
- `weights`: weights by name, and those of PyTorch's ResNets
- `convolution`: a convolution that stays fast in a loop on a CPU, and for a population
- `compilation`: `jax.jit` with the options under which networks train fast on a CPU
"""
