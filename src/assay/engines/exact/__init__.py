"""The integer engine: a model executed in whole numbers only, so that every machine gives the same bits."""
