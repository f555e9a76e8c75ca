"""Guards against forgetting: terms of the loss by which earlier tasks are kept, and the way back between weights.

One file and one paper each. They are handed the part that trains and earlier heads; they know no method, no encoder
and no data.
"""
