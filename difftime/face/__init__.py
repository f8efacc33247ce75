"""The public face: what `import difftime` offers for a network of one's own. It wraps the mathematics and adds none.

Data are `[n, *shape]`, of any shape. Floating-point data are points of a density, and results are in nats. 8-bit data
are `uint8`, or `Pixels` if the model was not trained on [-1, 1]. They are dequantised here, once per call. Only results
of 8-bit data have bits per dimension: for other data that number has no meaning, so it is an error.
"""
