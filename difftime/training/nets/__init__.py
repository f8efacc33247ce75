"""Networks (x, t) -> x. They know no SDE: what their output means is `score.py`'s business."""
