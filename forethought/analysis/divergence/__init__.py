"""How far attacks lie from what a model was asked directly, in its hidden states: numpy alone, over rows that are read in chunks."""
