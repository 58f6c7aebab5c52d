"""What comes in the package: the small pretrained model and the sample task."""
