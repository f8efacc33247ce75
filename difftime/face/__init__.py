"""The public face: what `import difftime` offers for a network of one's own. It wraps the mathematics and adds none.

Data are `[n, *shape]`, of any shape. Floating-point data are points of a density, and results are in nats. 8-bit data
(`uint8`, or `Pixels` where a model does not see them on [-1, 1]) are dequantised here, once per call, and only their
results have bits per dimension: for other data that number has no meaning, so it is refused.
"""
