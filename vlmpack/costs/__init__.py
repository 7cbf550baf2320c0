"""What rows will cost, known before training: their lengths, what packing saves, and what each way would compute."""
