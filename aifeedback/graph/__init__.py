"""What a recipe makes, as a graph of artifacts built once, and the player that brings them about."""
