"""Where texts come from: written by the model, stored, judged."""
