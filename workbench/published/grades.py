"""How a published figure came to us."""

#: How a figure came to us; said wherever one reaches a reader.
GRADES = {
    "A": "read in a primary source",
    "A-dig": "read off the authors' figure",
    "B": "quoted by a third party",
    "I": "our own inference",
}
