"""Deep InfoMax: representations by maximising mutual information."""
