"""Signal-JEPA as braindecode has it: its names and shapes, its channels, in and out."""
