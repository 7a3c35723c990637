"""Who did what to which object; append only."""
