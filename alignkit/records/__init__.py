"""What a study leaves: tables on disk, how they are read, registered and summarised."""
