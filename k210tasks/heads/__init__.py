"""What the outputs of a detector mean: maps and rows of numbers → boxes, and how two models' agree.

Arrays in, arrays out. A decoder takes the outputs of one picture without their batch: maps
``(channels, height, width)`` as both kmodel formats give them, rows ``(anchors, numbers)``; and
gives every :class:`Detections` that it finds above a score, before overlapping ones are dropped
(:func:`~k210tasks.heads.detections.suppress`). Boxes are shares of the model's input: what a
board draws depends on its display, not on the network.
"""
