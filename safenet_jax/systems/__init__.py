"""The other systems of the paper's Table 1, each whole: train, run privately, check.

A module is named for its system. `cryptonets` computes under encryption alone. `xonn` garbles
networks whose weights and activations are -1 and 1, `soteria` the same with some weights 0.
`tapas_she` counts the gates that they take under TFHE.
`minionn` runs the mode of that name on its paper's network.
"""
