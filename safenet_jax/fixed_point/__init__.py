"""From floats to integers: formats, the fixed-point model, and how both are chosen."""
