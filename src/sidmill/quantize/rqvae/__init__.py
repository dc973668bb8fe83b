"""RQ-VAE: an autoencoder whose latents are quantized level by level, trained as one."""
