"""What an exported folder carries beside the model: code for diffusers alone, which knows nothing of difftime."""
