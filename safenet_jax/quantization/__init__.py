"""From a float network and images to integers: which layers, which formats, which weights.

- `quantize`: a float network and calibration images in, a fixed-point model out; what it costs
- `fusing`: layers that become one
- `folding`: batch norm and squares, which disappear into weights
- `channel_order`: which channels a layer has to compute, and in which order
- `statistics`: how large values are
- `equalisation`: powers of two by which channels are scaled
- `calibration`: the walk that chooses formats and makes the integers
- `values`: what that walk knows of a value
- `bit_widths`: how many bits an activation layer gets
- `weight_bits`: how many fraction bits a layer's weights get
- `significance`: how many bits of a layer's values are more than noise of rounding
"""
