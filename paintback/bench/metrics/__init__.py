"""The metrics of the image benchmark: of pixels, of distributions of features, of the networks that give features."""
