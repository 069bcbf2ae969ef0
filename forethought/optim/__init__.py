"""Search over tokens and latents, shared by white-box attacks and adversarial training. Functions over a transformers model; nothing
here asks a model through a flow."""
