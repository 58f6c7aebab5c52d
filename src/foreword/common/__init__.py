"""What every part of foreword uses and what knows nothing of models: files, names, numbers."""
