"""What a prompt is to a backbone: keys, values and inputs for each row, carried into its layers."""
