"""What alignkit's speed is compared with: the plain loop, and published codes that the user has checked out."""
