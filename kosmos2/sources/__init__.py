"""Where pictures and what is said of them come from: one item each, found once, in order.

inputs        a folder, a list, a table, records or tars -> items; the list of them, frozen
coco          COCO's captions: one document of pictures and sentences
datasets      folders of Hugging Face's `datasets`, saved or of pictures with metadata
containers    the rows of tables and of files of records; the samples of tars
rows          one row -> one item, whatever its columns are called
places        the bytes of an item: a file, a member of a tar, a cell of a table, a url
"""
