"""What an exported folder carries beside the model: code for diffusers alone, which knows nothing of difftime.

Only `cell_unet` imports from difftime: in a folder the source of what it imports stands above its own.
"""
