"""Networks and checkpoints that several scorers share."""
