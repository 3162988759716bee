"""What builds and checks the book; not part of the installed package."""
