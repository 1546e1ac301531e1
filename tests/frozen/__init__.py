"""What a release has made that later ones must get on with."""
