"""Pictures with text, and text alone, become training batches.

    mixture -> order -> source -> row -> loader     which sample comes next; what it teaches; steps

A picture is encoded once and followed by several *lessons* (caption, find a phrase, describe a
box, answer a question), each of which sees the picture and itself, not its neighbours:

    <s> <image> 4 5 6 ... </image>  |  <grounding> An image of ... </s>  |  <grounding> <phrase> ...
    prefix, seen by every lesson       lesson 1                             lesson 2

With one caption lesson a sequence is exactly the published one (laion2b_obj_loader.py), its cells
and its crop too where a source says compat = "paper". Whatever is left out has a counted reason.
"""
