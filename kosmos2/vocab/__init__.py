"""Text and boxes as token ids, and back. Knows no picture, no network and no grammar of markup.

special.py        the id map: pieces, tags, location tokens
locations.py      Box <-> pair of grid cells
segments.py       what a prompt is made of, and what ids read as
pieces.py         plain text <-> pieces, with character offsets
sentencepiece.py  the pieces inside a sentencepiece model file
build.py          pieces learned from texts
files.py          tokenizer folders, read and written
tokenizer.py      all of it together: segments <-> ids
"""
